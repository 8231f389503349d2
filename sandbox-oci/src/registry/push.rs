//! Images into registries: what is missing there is sent, and the manifest last.
//!
//! Must never give a name to an image of which the registry has not all blobs, or send what gives
//! access to a place that a registry names elsewhere.

use std::fs::File;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::runtime::Handle;

use super::{Client, PATIENCE, Registries, SLOWEST, cancellable, unavailable};
use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::fault::io as io_fault;
use crate::image::{blob, parse};
use crate::layout::{Layout, SavedImage};
use crate::model::{Descriptor, MANIFEST, Manifest};
use crate::reference::RegistryName;

impl Registries {
    /// Puts an image of a layout into a registry under a name with a tag; gives the digest of its
    /// manifest. What the registry has of it is not sent again, and the name is given last: it means
    /// the whole image, or what it meant before. Blocks: the requests are made in the runtime, which
    /// must have I/O and time enabled.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for an image that the layout has not;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a name with a digest; those of
    /// [`pull`](Self::pull).
    pub fn push(
        &self,
        layout: &Layout,
        image: &str,
        to: &RegistryName,
        runtime: &Handle,
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Digest> {
        if to.digest.is_some() {
            let message = format!("{to} names an image by its digest");
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Create)
                .with_message(message)
                .with_hint("give it a tag: the digest is the image's own"));
        }
        let kept = |error| io_fault(error, "the image can't be read").with_host_path(layout.dir());
        let _in_use = layout.use_blobs().map_err(kept)?;
        let image = layout.find_image(image)?;
        let client = Client::new(self, to, "pull,push")?;
        cancellable(runtime, wanted, client.push(layout, &image))?;
        Ok(image.digest)
    }
}

impl Client<'_> {
    async fn push(&self, layout: &Layout, image: &SavedImage) -> Result<()> {
        let name = blob(&image.digest);
        let blobs = Blobs::directory(layout.dir())?;
        let bytes = blobs.document(&name, Some((&image.digest, None)))?;
        let manifest: Manifest = parse(&name, &bytes)?;
        let mut access = None;
        for described in manifest.layers.iter().chain([&manifest.config]) {
            self.send_blob(layout, described, &mut access).await?;
        }
        let url = self.url(&format!(
            "{}/manifests/{}",
            self.name.repository,
            self.name.version()
        ))?;
        let put = || {
            self.http
                .put(url.clone())
                .header(CONTENT_TYPE, MANIFEST)
                .body(bytes.clone())
        };
        let response = self.send(&mut access, put).await?;
        self.accepted(response).map(drop)
    }

    /// Sends a blob, unless the registry has it.
    async fn send_blob(
        &self,
        layout: &Layout,
        described: &Descriptor,
        access: &mut Option<String>,
    ) -> Result<()> {
        let (digest, size) = (&described.digest, described.size);
        let there = self.url(&format!("{}/blobs/{digest}", self.name.repository))?;
        let ask = || self.http.request(Method::HEAD, there.clone());
        let response = self.send(access, ask).await?;
        match response.status() {
            // A storage elsewhere has it.
            status if status.is_success() || status.is_redirection() => return Ok(()),
            StatusCode::NOT_FOUND => {}
            _ => return self.accepted(response).map(drop),
        }
        let begin = self.url(&format!("{}/blobs/uploads/", self.name.repository))?;
        let begun = || self.http.post(begin.clone()).header(CONTENT_LENGTH, 0);
        let response = self.send(access, begun).await?;
        let mut to = self.upload(&begin, self.accepted(response)?)?;
        to.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let path = layout.dir().join(blob(digest));
        let file = File::open(&path);
        let file = file.map_err(|error| {
            io_fault(error, "a part of the image can't be read").with_host_path(&path)
        })?;
        // Only once: what gives access was given a moment ago.
        let mut request = self
            .sending
            .put(to.clone())
            .timeout(PATIENCE + std::time::Duration::from_secs(size / SLOWEST))
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size)
            .body(Body::from(tokio::fs::File::from_std(file)));
        if let Some(access) = access
            && to.origin() == begin.origin()
        {
            request = request.header(AUTHORIZATION, &*access);
        }
        let response = request.send().await;
        let response = response.map_err(|error| unavailable(self.name, &error))?;
        self.accepted(response).map(drop)
    }

    /// The address that an upload goes to.
    fn upload(&self, from: &Url, begun: Response) -> Result<Url> {
        let to = begun.headers().get(LOCATION);
        let to = to.and_then(|to| from.join(to.to_str().ok()?).ok());
        let to = to.ok_or_else(|| self.wrong("it names no place for a blob"))?;
        self.check(&to)?;
        Ok(to)
    }

    /// Sends a request to the registry; asks for access once.
    async fn send(
        &self,
        access: &mut Option<String>,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response> {
        let with = |access: Option<&str>| match access {
            Some(access) => request().header(AUTHORIZATION, access).send(),
            None => request().send(),
        };
        let failed = |error| unavailable(self.name, &error);
        let response = with(access.as_deref()).await.map_err(failed)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        *access = Some(self.access(response.headers()).await?);
        with(access.as_deref()).await.map_err(failed)
    }
}
