// SPDX-License-Identifier: Apache-2.0
/** Where an agent is declared, its archive is a module beside the Worker's code. */
declare module "*.tar.gz" {
  const content: ArrayBuffer;
  export default content;
}
