//! Sandboxes that each break one promise, to show that the kit notices.
//!
//! Invariant: a fake is the model with one fault; without its fault it passes every case.

mod sandbox;

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, Labels, Provider, Resources, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec,
};

use crate::kit::{Deviation, Fixture};
use crate::model::{ModelFixture, ModelProvider};

use sandbox::FakeSandbox;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident => $case:literal,)+) => {
        /// One broken promise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Fault { $($(#[$doc])* $name,)+ }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// A case that catches it.
            pub fn caught_by(self) -> &'static str {
                match self { $(Self::$name => $case,)+ }
            }
        }
    };
}

faults! {
    /// A batch that fails leaves the files before the bad one.
    BatchNotAtomic => "batch::an_existing_file_fails_the_whole_batch",
    /// A file that must be new replaces one that is there.
    CreateNewReplaces => "batch::an_existing_file_fails_the_whole_batch",
    /// Modes are dropped.
    ModeLost => "files::a_mode_is_kept",
    /// The limit of reading is not heeded.
    ReadLimitIgnored => "files::reading_beyond_the_limit_states_it",
    /// Removing what is not there succeeds.
    RemoveOfMissingIsFine => "files::removing_a_missing_path_is_not_found",
    /// `..` is taken away instead of followed.
    DotDotDropped => "paths::dot_dot_is_lexical",
    /// Errors do not name the path.
    ErrorsWithoutPath => "files::reading_a_missing_file_names_it",
    /// Errors do not name the sandbox.
    ErrorsWithoutSandbox => "files::reading_a_missing_file_names_it",
    /// Entries come in another order.
    ListUnsorted => "listing::entries_are_sorted_by_bytes",
    /// Links are listed as what they point to.
    ListFollowsLinks => "listing::kinds_are_told_apart",
    /// Truncated output looks whole.
    TruncationNotTold => "streams::output_beyond_the_limit_is_truncated_and_counted",
    /// stderr goes into stdout.
    StderrMerged => "streams::stdout_and_stderr_are_apart",
    /// Input is not given.
    StdinIgnored => "streams::stdin_text_arrives",
    /// A code other than zero is an error.
    ExitCodeIsAnError => "exec::a_code_is_not_an_error",
    /// Death by signal looks like a code.
    SignalAsCode => "exec::death_by_signal_is_told_apart",
    /// Arguments pass through a shell.
    ArgumentsThroughShell => "exec::arguments_arrive_verbatim",
    /// A missing program is a result with code 127.
    MissingProgramIsAResult => "exec::a_missing_program_is_named",
    /// The host's variables are given to commands.
    HostEnvironmentLeaks => "env::nothing_of_the_hosts_environment_is_there",
    /// A timeout returns and leaves the process.
    TimeoutKeepsTheProcess => "kill::a_timeout_kills_the_command",
    /// What a command said before its timeout is lost.
    PartialOutputDropped => "kill::a_timeout_is_an_error_with_the_partial_output",
    /// A dropped future leaves the process.
    DropKeepsTheProcess => "kill::a_dropped_exec_kills_the_command",
    /// A fork is the same sandbox.
    ForkSharesWrites => "fork::writes_after_the_fork_stay_on_their_side",
    /// A fork starts in the root.
    ForkLosesWorkdir => "fork::a_fork_has_the_workdir",
    /// A failed export leaves a part under the final name.
    ExportLeavesAPart => "transfer::export_beyond_a_limit_leaves_nothing",
    /// An export brings links that lead out.
    ExportLetsLinksOut => "transfer::export_lets_no_chain_of_links_out",
    /// A merging export writes through links of the destination.
    MergeFollowsLinks => "transfer::export_merging_writes_through_no_link",
    /// A mirroring import removes nothing.
    MirrorIgnored => "transfer::import_mirrors_deletions_when_asked",
    /// Closing twice is an error.
    CloseOnlyOnce => "lifecycle::close_may_be_called_twice",
    /// A closed sandbox works on.
    CloseDoesNothing => "lifecycle::every_call_after_close_says_closed",
    /// A limit that can't be had is ignored.
    LimitIgnored => "unsupported::pids_limit",
}

/// A backend with a fault.
#[derive(Debug)]
pub struct FakeFixture {
    model: ModelFixture,
    fault: Fault,
}

impl FakeFixture {
    /// A backend with this fault.
    pub fn new(fault: Fault) -> Self {
        Self {
            model: ModelFixture::new(),
            fault,
        }
    }
}

#[async_trait]
impl Fixture for FakeFixture {
    fn name(&self) -> String {
        format!("{:?}", self.fault)
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(FakeProvider::new(self.fault)))
    }

    fn deviations(&self) -> Vec<Deviation> {
        self.model.deviations()
    }
}

/// The model's provider with a fault in its sandboxes.
#[derive(Debug)]
pub struct FakeProvider {
    model: ModelProvider,
    fault: Fault,
}

impl FakeProvider {
    /// A provider with this fault.
    pub fn new(fault: Fault) -> Self {
        Self {
            model: ModelProvider::new(),
            fault,
        }
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn backend(&self) -> &'static str {
        self.model.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn create(&self, mut spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        if self.fault == Fault::LimitIgnored {
            spec.resources = Resources::new();
        }
        let inner = self.model.create(spec).await?;
        Ok(FakeSandbox::wrap(inner, self.fault))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let inner = self.model.attach(id).await?;
        Ok(FakeSandbox::wrap(inner, self.fault))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.model.list(labels).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.model.destroy(id).await
    }
}
