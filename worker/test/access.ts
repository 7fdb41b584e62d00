// SPDX-License-Identifier: Apache-2.0
/** STAND-IN for Cloudflare Access: a team with keys of its own, whose tokens are made to order. */
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";

export const ISSUER = "https://team.cloudflareaccess.example";

/** What may be wrong with a token. */
export interface Order {
  issuer?: string;
  audience?: string[];
  expiresIn?: number;
  stranger?: boolean;
  claims?: JWTPayload;
}

/** A team that signs tokens. */
export class Team {
  private constructor(
    private readonly pair: CryptoKeyPair,
    private readonly strange: CryptoKeyPair,
    /** What the team publishes. */
    readonly certs: string,
  ) {}

  static async create(): Promise<Team> {
    const [pair, strange] = await Promise.all([generateKeyPair("RS256"), generateKeyPair("RS256")]);
    const jwk = { ...(await exportJWK(pair.publicKey)), kid: "key-1", alg: "RS256", use: "sig" };
    return new Team(pair as CryptoKeyPair, strange as CryptoKeyPair, JSON.stringify({ keys: [jwk] }));
  }

  token(order: Order = {}): Promise<string> {
    const { issuer = ISSUER, audience = ["audience-two"], expiresIn = 60, stranger = false } = order;
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT({ email: "alice@team.example", ...order.claims })
      .setProtectedHeader({ alg: "RS256", kid: "key-1" })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt(now - 120)
      .setExpirationTime(now + expiresIn)
      .sign((stranger ? this.strange : this.pair).privateKey);
  }
}
