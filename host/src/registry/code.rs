//! Components by their digests, loaded: from what this host has, from what other hosts have compiled, or compiled here.

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

/// Components that are loaded ahead at the same time: what runs ask for meanwhile goes beside them.
const AHEAD: usize = 2;
const MOST_AHEAD: usize = 1_000;
/// Components of one release that are loaded at the same time; those that wait for the compiler hold their bytes.
const AT_ONCE: usize = 8;

impl Registry {
    /// Loads active components, so that no run waits for them: all, or as many as the sandbox keeps.
    ///
    /// # Errors
    /// The database is unreachable. What is wrong with a single component is logged.
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
                    // Runs that call it fail at that step, and new ones are told so.
                    Err(error) => {
                        let names = store.active_names(digest).await.unwrap_or_default().join(", ");
                        error!(
                            component.name = names, component.digest = %digest, %error,
                            "a component is set aside, it can't be loaded: {names}"
                        );
                    }
                    Ok(_) => {}
                }
                Ok(())
            })
            .await?;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(components = active.len(), duration_ms, "loaded the active components");
        // Those of this machine's folder, which may be older than the key.
        let loaded = active.iter().filter_map(|digest| sandbox.loaded(digest)).collect();
        self.share_missing(loaded).await
    }

    /// Components by the names under which they are called. One that can't be loaded, whatever is done, is set aside.
    ///
    /// # Errors
    /// Something that may pass keeps one from being loaded.
    pub(super) async fn loaded_by_name(
        &self,
        digests: BTreeMap<String, Digest>,
    ) -> Result<BTreeMap<String, Result<Arc<Loaded>, SetAside>>, Error> {
        stream::iter(digests)
            .map(async |(name, digest)| match self.loaded(digest).await {
                Ok(loaded) => Ok((name, Ok(loaded))),
                Err(error @ (Error::InvalidComponent(_) | Error::TooLarge { .. })) => {
                    let why = format!("component `{name}` can't be loaded on this host: {error}");
                    error!(component.name = name, component.digest = %digest, %error, "a component is set aside");
                    Ok((name, Err(SetAside { digest, why: why.into() })))
                }
                Err(error) => Err(error),
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The component of that digest.
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

    /// Hands the code on to other hosts, unless one of them has done so. Nobody waits for it.
    pub(super) fn share_if_missing(&self, loaded: Arc<Loaded>) {
        if self.shared.sandbox.shares_code() {
            let registry = self.clone();
            tokio::spawn(
                async move { registry.share_missing(vec![loaded]).await.unwrap_or_else(not_shared) },
            );
        }
    }

    /// Whoever comes while another does the same finds nothing missing.
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

    /// In the place of code whose tag was wrong, if there is such.
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

    /// None if no host of our kind has kept it, or what is there can't be trusted.
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
            // The bytes may be there all the same.
            Err(error) => {
                warn!(component.digest = %digest, %error, "compiled code in the database can't be read");
                Ok(None)
            }
        }
    }
}

fn not_shared(error: Error) {
    warn!(%error, "compiled code isn't handed on to other hosts");
}
