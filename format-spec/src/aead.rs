//! AES-256-GCM behind one small trait, with two engines that are tested against each other.
//!
//! [`Engine`] is the faster one, by measurement (`benches/baseline.md`, row "seal").

use aes_gcm::KeyInit;
use aes_gcm::aead::AeadInOut;

/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// The tag does not belong to this key, nonce, associated data and ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// AES-256-GCM over a buffer in place.
pub trait Aead {
    /// Encrypts `in_out` and returns the tag.
    fn seal(key: &[u8; 32], nonce: &[u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN];

    /// Checks `tag`, then decrypts `in_out`. On an error the content of `in_out` is unspecified and
    /// must not be used.
    ///
    /// # Errors
    /// [`Unauthentic`] if anything differs from what was sealed.
    fn open(
        key: &[u8; 32],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Unauthentic>;
}

/// The engine that everything is sealed with.
pub type Engine = AwsLc;

/// AES-256-GCM of AWS-LC: assembly for each processor.
pub struct AwsLc;

impl AwsLc {
    fn key(key: &[u8; 32]) -> aws_lc_rs::aead::LessSafeKey {
        let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, key);
        aws_lc_rs::aead::LessSafeKey::new(key.expect("an AES-256 key has 32 bytes"))
    }
}

impl Aead for AwsLc {
    fn seal(key: &[u8; 32], nonce: &[u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
        let tag = Self::key(key)
            .seal_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::from(aad), in_out)
            .expect("sealing fails only over 64 GiB");
        tag.as_ref().try_into().expect("a GCM tag has 16 bytes")
    }

    fn open(
        key: &[u8; 32],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Unauthentic> {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
        Self::key(key)
            .open_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::from(aad), tag, in_out)
            .map(|_| ())
            .map_err(|_| Unauthentic)
    }
}

/// AES-256-GCM of the RustCrypto project: the reference engine.
pub struct RustCrypto;

impl Aead for RustCrypto {
    fn seal(key: &[u8; 32], nonce: &[u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        aes_gcm::Aes256Gcm::new(key.into())
            .encrypt_inout_detached(nonce.into(), aad, in_out.into())
            .expect("sealing fails only over 64 GiB")
            .into()
    }

    fn open(
        key: &[u8; 32],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Unauthentic> {
        aes_gcm::Aes256Gcm::new(key.into())
            .decrypt_inout_detached(nonce.into(), aad, in_out.into(), tag.into())
            .map_err(|_| Unauthentic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Either engine opens bytes that the other sealed.
        #[test]
        fn both_engines_are_the_same_function(
            key: [u8; 32],
            nonce: [u8; 12],
            aad in proptest::collection::vec(any::<u8>(), 0..80),
            plain in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let (mut ours, mut theirs) = (plain.clone(), plain.clone());

            let tag = AwsLc::seal(&key, &nonce, &aad, &mut ours);
            let other = RustCrypto::seal(&key, &nonce, &aad, &mut theirs);

            prop_assert_eq!(tag, other);
            prop_assert_eq!(&ours, &theirs);
            RustCrypto::open(&key, &nonce, &aad, &mut ours, &tag).unwrap();
            AwsLc::open(&key, &nonce, &aad, &mut theirs, &tag).unwrap();
            prop_assert_eq!(&ours, &plain);
            prop_assert_eq!(&theirs, &plain);
        }
    }

    /// NIST GCM test case 16 (McGrew and Viega, "The Galois/Counter Mode of Operation").
    #[test]
    fn a_published_vector_comes_out() {
        let key = crate::id::parse_hex_32("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
            .unwrap();
        let nonce = [0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88];
        let aad = [
            0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef,
            0xab, 0xad, 0xda, 0xd2,
        ];
        let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
        let mut data: Vec<u8> =
            (0..plain.len()).step_by(2).map(|i| u8::from_str_radix(&plain[i..i + 2], 16).unwrap()).collect();

        let tag = Engine::seal(&key, &nonce, &aad, &mut data);

        assert_eq!(crate::id::to_hex(&tag), "76fc6ece0f4e1768cddf8853bb2d551b");
    }

    #[test]
    fn any_changed_part_is_refused() {
        let (key, nonce, aad) = ([1; 32], [2; 12], [3; 8]);
        let mut sealed = *b"some plaintext";
        let tag = Engine::seal(&key, &nonce, &aad, &mut sealed);
        let opens = |key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], data: [u8; 14], tag: [u8; 16]| {
            let mut data = data;
            Engine::open(key, nonce, aad, &mut data, &tag).is_ok()
        };
        let mut flipped = sealed;
        flipped[3] ^= 1;
        let mut bad_tag = tag;
        bad_tag[15] ^= 0x80;

        assert!(opens(&key, &nonce, &aad, sealed, tag));
        assert!(!opens(&[9; 32], &nonce, &aad, sealed, tag));
        assert!(!opens(&key, &[9; 12], &aad, sealed, tag));
        assert!(!opens(&key, &nonce, &aad[..7], sealed, tag));
        assert!(!opens(&key, &nonce, &aad, flipped, tag));
        assert!(!opens(&key, &nonce, &aad, sealed, bad_tag));
    }
}
