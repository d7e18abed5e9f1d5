//! Loads components by their digests: from this host's own memory or folder, from the code that other hosts share, or
//! by compiling.

use std::collections::BTreeMap;
use std::future;
use std::sync::Arc;
use std::time::Instant;

use aster_core::id::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::{error, info, warn};

use super::release::{SetAside, missing};
use super::{Error, Registry, Shared};
use crate::sandbox::{Behalf, Loaded};
use crate::store::{self, CompiledCode};

/// The number of components that are loaded ahead at the same time. Components that runs ask for meanwhile are loaded
/// besides.
const AHEAD: usize = 2;
const MOST_AHEAD: usize = 1_000;
/// The number of components of one release that are loaded at the same time. Those that wait for the compiler hold
/// their bytes.
const AT_ONCE: usize = 8;

impl Registry {
    /// Loads the active components, so that no run waits for them: all of them, or as many as the sandbox keeps.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable. Failures of single components are only logged.
    pub async fn load_ahead(&self) -> Result<(), Error> {
        let Shared { store, sandbox, .. } = &*self.shared;
        let began = Instant::now();
        let active = store.active_components(MOST_AHEAD).await?;
        stream::iter(&active)
            .take_while(|_| future::ready(!sandbox.is_full()))
            .map(Ok)
            .try_for_each_concurrent(AHEAD, |&digest| async move {
                match self.loaded(digest).await {
                    Err(error @ Error::Store(store::Error::Unavailable { .. })) => return Err(error),
                    // Runs that call this component fail at that step, and new runs are refused.
                    Err(error) => {
                        let names = store.active_names(digest).await.unwrap_or_default().join(", ");
                        error!(
                            component.name = names, component.digest = %digest, %error,
                            "a component is set aside, because this host can't load it: {names}"
                        );
                    }
                    Ok(_) => {}
                }
                Ok(())
            })
            .await?;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(components = active.len(), duration_ms, "the host loaded the active components");
        // Components from this machine's folder may have been compiled before the host had a key.
        let loaded = active.iter().filter_map(|digest| sandbox.loaded(digest)).collect();
        self.share_missing(loaded).await
    }

    /// Loads components by the names under which they are called. A component that can never be loaded on this host is
    /// set aside.
    ///
    /// # Errors
    /// Returns an error if a component can't be loaded for a reason that may pass.
    pub(super) async fn loaded_by_name(
        &self,
        digests: BTreeMap<String, Digest>,
    ) -> Result<BTreeMap<String, Result<Arc<Loaded>, SetAside>>, Error> {
        stream::iter(digests)
            .map(async |(name, digest)| match self.loaded(digest).await {
                Ok(loaded) => Ok((name, Ok(loaded))),
                Err(error @ (Error::InvalidComponent(_) | Error::TooLarge { .. })) => {
                    let why = format!("component `{name}` can't be loaded on this host: {error}");
                    error!(component.name = name, component.digest = %digest, %error, "component {name} is set aside, because this host can't load it");
                    Ok((name, Err(SetAside { digest, why: why.into() })))
                }
                Err(error) => Err(error),
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Loads the component with this digest.
    pub(super) async fn loaded(&self, digest: Digest) -> Result<Arc<Loaded>, Error> {
        let Shared { store, sandbox, .. } = &*self.shared;
        let mut is_compiled = false;
        let otherwise = async {
            if let Some(loaded) = self.compiled_elsewhere(digest).await? {
                return Ok::<_, Error>(loaded);
            }
            let bytes = store.load_component_bytes(digest).await?;
            let bytes = bytes.ok_or_else(|| missing("component", &digest.to_string()))?;
            is_compiled = true;
            Ok(sandbox.compile_anew(Behalf::Host, digest, bytes.into()).await?)
        };
        let loaded = sandbox.load(digest, otherwise).await?;
        if is_compiled && sandbox.shares_code() {
            let registry = self.clone();
            let loaded = Arc::clone(&loaded);
            tokio::spawn(async move { registry.share(loaded).await.unwrap_or_else(not_shared) });
        }
        Ok(loaded)
    }

    /// Shares the code with other hosts in the background, unless one of them has shared it already.
    pub(super) fn share_if_missing(&self, loaded: Arc<Loaded>) {
        if self.shared.sandbox.shares_code() {
            let registry = self.clone();
            tokio::spawn(
                async move { registry.share_missing(vec![loaded]).await.unwrap_or_else(not_shared) },
            );
        }
    }

    /// Shares those that are missing. The lock is held for all of it, so that a second caller finds nothing missing.
    async fn share_missing(&self, loaded: Vec<Arc<Loaded>>) -> Result<(), Error> {
        let Shared { store, sandbox, sharing, .. } = &*self.shared;
        if !sandbox.shares_code() {
            return Ok(());
        }
        let _one_at_a_time = sharing.lock().await;
        let digests: Vec<Digest> = loaded.iter().map(|loaded| loaded.digest()).collect();
        let missing = store.missing_code(&digests, sandbox.compatibility().0).await?;
        for loaded in loaded.into_iter().filter(|loaded| missing.contains(&loaded.digest())) {
            self.put(loaded).await?;
        }
        Ok(())
    }

    /// Shares the code, and replaces a shared copy whose tag was wrong.
    async fn share(&self, loaded: Arc<Loaded>) -> Result<(), Error> {
        let _one_at_a_time = self.shared.sharing.lock().await;
        self.put(loaded).await
    }

    async fn put(&self, loaded: Arc<Loaded>) -> Result<(), Error> {
        let Shared { store, sandbox, .. } = &*self.shared;
        let digest = loaded.digest();
        let Some((code, tag)) = sandbox.seal(loaded).await else { return Ok(()) };
        let now = store.clock().await?;
        Ok(store.put_code(digest, sandbox.compatibility().0, &CompiledCode { code, tag }, now).await?)
    }

    /// Returns the code that another host shared. `None` means that no host of the same kind has shared it, or that its
    /// code can't be trusted.
    pub(super) async fn compiled_elsewhere(&self, digest: Digest) -> Result<Option<Loaded>, Error> {
        let Shared { store, sandbox, .. } = &*self.shared;
        if !sandbox.shares_code() {
            return Ok(None);
        }
        let now = store.clock().await?;
        match store.load_code(digest, sandbox.compatibility().0, now).await {
            Ok(Some(CompiledCode { code, tag })) => Ok(sandbox.unseal(digest, code, tag).await),
            Ok(None) => Ok(None),
            Err(error @ store::Error::Unavailable { .. }) => Err(error.into()),
            // The component's bytes may still be readable.
            Err(error) => {
                warn!(component.digest = %digest, %error, "the host can't read compiled code from the database");
                Ok(None)
            }
        }
    }
}

fn not_shared(error: Error) {
    warn!(%error, "the host couldn't share compiled code with other hosts");
}
