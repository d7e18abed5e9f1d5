//! The key by which hosts recognize each other's compiled code.

use std::str::FromStr;

use aster_core::id::Digest;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Compatibility, Trusted};

/// The prefix of all tags for this purpose, in this version of the format.
const DOMAIN: &[u8] = b"aster compiled code 1\0";
const MIN_KEY_BYTES: usize = 32;

/// A secret that hosts share. Code with a tag made with this key was compiled by one of them.
///
/// The tag is HMAC-SHA-256 (RFC 2104) over the domain, the component's digest, the compatibility, and the code. All but
/// the last have fixed lengths. So code can't be passed off as another component's, or as code for another engine.
#[derive(Clone)]
pub struct CodeKey {
    /// The keyed state. The key itself is not kept.
    mac: Hmac<Sha256>,
}

/// The text is not a key. The message doesn't repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at least 64 hexadecimal digits (32 bytes), as `openssl rand -hex 32` makes them")]
pub struct InvalidKey;

impl FromStr for CodeKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let key = hex::decode(text.trim()).map_err(|_| InvalidKey)?;
        if key.len() < MIN_KEY_BYTES {
            return Err(InvalidKey);
        }
        Ok(Self { mac: Hmac::new_from_slice(&key).map_err(|_| InvalidKey)? })
    }
}

impl CodeKey {
    pub(super) fn tag(&self, digest: &Digest, compatibility: &Compatibility, code: &[u8]) -> Vec<u8> {
        self.mac_of(digest, compatibility, code).finalize().into_bytes().to_vec()
    }

    /// Returns the code if `tag` is valid for it. Tags are compared in constant time.
    pub(super) fn verify(
        &self,
        digest: &Digest,
        compatibility: &Compatibility,
        code: Vec<u8>,
        tag: &[u8],
    ) -> Option<Trusted> {
        self.mac_of(digest, compatibility, &code).verify_slice(tag).ok()?;
        Some(Trusted(code))
    }

    fn mac_of(&self, digest: &Digest, compatibility: &Compatibility, code: &[u8]) -> Hmac<Sha256> {
        let mac = self.mac.clone().chain_update(DOMAIN);
        mac.chain_update(digest.0).chain_update(compatibility.0).chain_update(code)
    }
}

impl std::fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    fn key(text: &str) -> CodeKey {
        text.parse().expect("it is a key")
    }

    #[test]
    fn a_key_has_at_least_32_bytes_and_is_never_printed() {
        assert_eq!(format!("{:?}", key(&format!("{KEY}00\n"))), "CodeKey(..)");
        for wrong in ["", "secret", &KEY[2..], &KEY[1..], "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="] {
            let error = wrong.parse::<CodeKey>().expect_err(wrong);
            assert!(wrong.is_empty() || !error.to_string().contains(wrong));
        }
    }

    #[test]
    fn a_tag_is_valid_only_for_its_own_code_component_and_engine() {
        let (digest, engine) = (Digest([1; 32]), Compatibility([2; 32]));
        let tag = key(KEY).tag(&digest, &engine, b"code");
        let verify = |key: &CodeKey, digest, engine, code: &[u8], tag: &[u8]| {
            key.verify(&digest, &engine, code.to_vec(), tag).is_some()
        };
        assert!(verify(&key(KEY), digest, engine, b"code", &tag));
        assert!(!verify(&key(&KEY.replace("00", "01")), digest, engine, b"code", &tag));
        assert!(!verify(&key(KEY), Digest([3; 32]), engine, b"code", &tag));
        assert!(!verify(&key(KEY), digest, Compatibility([3; 32]), b"code", &tag));
        assert!(!verify(&key(KEY), digest, engine, b"c0de", &tag));
        assert!(!verify(&key(KEY), digest, engine, b"code", &tag[1..]));
        assert!(!verify(&key(KEY), digest, engine, b"code", b""));
    }

    #[test]
    fn the_tag_is_hmac_sha_256_of_domain_digest_compatibility_and_code() {
        let mut mac = Hmac::<Sha256>::new_from_slice(&hex::decode(KEY).expect("hex")).expect("any length");
        mac.update(&[b"aster compiled code 1\0".as_slice(), &[1; 32], &[2; 32], b"code"].concat());
        let expected = mac.finalize().into_bytes().to_vec();
        assert_eq!(key(KEY).tag(&Digest([1; 32]), &Compatibility([2; 32]), b"code"), expected);
    }
}
