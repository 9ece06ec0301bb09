//! Who may make an operator's calls: whoever has the admin token.

use crate::credential::authorization::Authorization;
use crate::credential::credential_digest;
use crate::denial::Denial;
use crate::fields::{Fields, Only};
use crate::secret::{DigestKey, Purpose, Secret, SecretDigest};

/// Digests of the secrets that open the operator's calls; any may match.
#[derive(Clone, Debug)]
pub struct AdminKeys {
    digests: Vec<SecretDigest>,
    digest_key: DigestKey,
}

impl AdminKeys {
    /// Keeps the secrets' digests.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>, digest_key: &DigestKey) -> AdminKeys {
        let digests = secrets.into_iter().map(|secret| credential_digest(secret, digest_key)).collect();
        AdminKeys { digests, digest_key: digest_key.clone() }
    }

    /// Reads the one Authorization field, which must be one of the secrets. Every digest is compared whole, in constant
    /// time, whichever matches.
    pub fn prove(&self, fields: &Fields) -> Result<(), Denial> {
        let value = match fields.only("authorization") {
            Only::None => return Err(Denial::CredentialMissing),
            Only::Many => return Err(Denial::CredentialRepeated),
            Only::One(value) => value,
        };
        let Authorization::Bearer(key) = Authorization::parse(value)? else { return Err(Denial::CredentialMalformed) };
        let given = self.digest_key.digest(Purpose::Credential, &key);
        let known = self.digests.iter().fold(false, |any, digest| (*digest == given) | any);
        if known { Ok(()) } else { Err(Denial::CredentialWrong) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn prove(fields: &str) -> Result<(), Denial> {
        let secrets = ["the-older-of-the-secrets", "the-newer-of-the-secrets"];
        let secrets = secrets.map(|secret| Secret::new(secret.as_bytes().to_vec()));
        let keys = AdminKeys::new(&secrets, &DigestKey::new([7; 32]));
        keys.prove(&Fields::scan(Bytes::from(format!("{fields}\r\n")), 0, 10).unwrap())
    }

    #[test]
    fn any_of_the_secrets_opens_and_nothing_else() {
        assert_eq!(prove("Authorization: Bearer the-older-of-the-secrets\r\n"), Ok(()));
        assert_eq!(prove("authorization: bearer the-newer-of-the-secrets\r\n"), Ok(()));
        assert_eq!(prove(""), Err(Denial::CredentialMissing));
        for wrong in ["the-older-of-the-secret", "the-older-of-the-secretss", "The-older-of-the-secrets", "x"] {
            assert_eq!(prove(&format!("Authorization: Bearer {wrong}\r\n")), Err(Denial::CredentialWrong), "{wrong}");
        }
        for malformed in ["the-older-of-the-secrets", "Bearer", "Bearer a b", "Basic YTpi", ""] {
            let found = prove(&format!("Authorization: {malformed}\r\n"));
            assert_eq!(found, Err(Denial::CredentialMalformed), "{malformed}");
        }
        let twice = "Authorization: Bearer the-older-of-the-secrets\r\n".repeat(2);
        assert_eq!(prove(&twice), Err(Denial::CredentialRepeated));
    }
}
