// SPDX-License-Identifier: Apache-2.0
import { runHalf } from "./run.ts";

runHalf(1);
