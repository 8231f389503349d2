//! Methods that resources of every kind have, written once.

/// Writes how a resource of a kind is named, listed, made what its specification says, shown and
/// deleted. The documentation of each is the kind's. The kind has the fields `plane` and `target`, and
/// `put(&self, spec, anyway)`, which writes the resource; with `anyway` also if it was asked for so
/// already.
macro_rules! managed {
    (
        $(#[$named:meta])*
        $find:ident -> $Managed:ident, of $kind:expr;

        $(#[$listed:meta])*
        $list:ident;

        $(#[$ensured:meta])*
        ensure($Spec:ty) -> $Properties:ty;

        $(#[$deleted:meta])*
        delete;
    ) => {
        impl ControlPlane {
            $(#[$named])*
            pub fn $find(&self, name: &str) -> Result<$Managed> {
                Ok($Managed {
                    target: self.target(&$kind, name)?,
                    plane: self.clone(),
                })
            }

            $(#[$listed])*
            pub async fn $list(&self) -> Result<Vec<Resource<$Properties>>> {
                self.all(&$kind).await
            }
        }

        impl $Managed {
            /// The identifier.
            pub fn id(&self) -> &ResourceId {
                &self.target.id
            }

            $(#[$ensured])*
            pub async fn ensure(&self, spec: &$Spec) -> Result<Resource<$Properties>> {
                self.put(spec, false).await
            }

            /// Ensures it, and writes it even if it was asked for so already: what others changed is
            /// undone.
            ///
            /// # Errors
            /// Those of [`ensure`](Self::ensure).
            pub async fn update(&self, spec: &$Spec) -> Result<Resource<$Properties>> {
                self.put(spec, true).await
            }

            /// Returns what the service shows of it; `None` if it is not there.
            ///
            /// # Errors
            /// What the service answers.
            pub async fn show(&self) -> Result<Option<Resource<$Properties>>> {
                self.plane.show(&self.target).await
            }

            $(#[$deleted])*
            pub async fn delete(&self) -> Result<()> {
                self.plane.delete(&self.target).await
            }
        }
    };
}

pub(super) use managed;
