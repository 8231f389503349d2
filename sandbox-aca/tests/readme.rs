//! The README's support matrix is what the providers declare.

use sandbox_aca::{AcaSandboxProvider, AcaSessionProvider};
use sandbox_core::{Capability, Support};

const README: &str = include_str!("../README.md");

fn cell(support: Support) -> String {
    match support {
        Support::Full => "yes".into(),
        Support::Partial(how) => format!("partly: {how}"),
        Support::None(why) => format!("no: {why}"),
    }
}

#[test]
fn the_support_matrix_is_what_is_declared() {
    let mut table = String::from("\n| | Sandboxes | Sessions, Python and Shell |\n|---|---|---|\n");
    for capability in Capability::ALL {
        let cells = [
            AcaSandboxProvider::CAPABILITIES,
            AcaSessionProvider::CAPABILITIES,
        ];
        let [sandboxes, sessions] = cells.map(|all| cell(all.support(*capability)));
        table += &format!("| {capability} | {sandboxes} | {sessions} |\n");
    }
    let written = README.split("<!-- matrix -->\n").nth(1);
    let written = written.and_then(|rest| rest.split("<!-- /matrix -->").next());
    assert_eq!(
        written.map(str::trim),
        Some(table.trim()),
        "the table should be:\n{table}"
    );
}
