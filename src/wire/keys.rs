//! Files of keys that others can read. Never reads a key for any other use.

use std::path::Path;
use std::sync::Once;

use crate::plan::ErrorClass;
use crate::s3::Endpoint;
use crate::service::secrets;

use super::Error;

/// Refuses a file that was named for keepwatch. One of the AWS CLI's own is taken, as by the AWS
/// CLI, and a warning said once in the life of the process.
pub fn keep_to_themselves(endpoint: &Endpoint) -> Result<(), Error> {
    match &endpoint.credentials_file {
        Some(file) if secrets::is_exposed(file) => Err(refused(file)),
        None if endpoint.keys.is_none() => {
            warn(endpoint.profile.is_some());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The same of a file that was made readable for others meanwhile.
pub fn veto(file: &Path) -> Option<String> {
    secrets::is_exposed(file).then(|| format!("{}; chmod 600 '{}'", exposed(file), file.display()))
}

fn exposed(file: &Path) -> String {
    format!("others can read {}, and there is a secret in it", file.display())
}

fn refused(file: &Path) -> Error {
    let (message, file) = (exposed(file), file.display());
    Error::new(ErrorClass::Configuration, message)
        .passing()
        .hint(format!("chmod 600 '{file}'"))
        .hint("whoever may have read it meanwhile has the keys: think of new ones")
}

fn warn(names_profile: bool) {
    static ONCE: Once = Once::new();
    let mut files = secrets::shared_files(names_profile).into_iter();
    let Some(file) = files.find(|file| secrets::is_exposed(file)) else { return };
    let file = file.display();
    ONCE.call_once(|| tracing::warn!("others can read the keys in {file}: chmod 600 '{file}'"));
}
