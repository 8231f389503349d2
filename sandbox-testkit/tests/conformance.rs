//! The kit against its own model, plain and through pointers.

sandbox_testkit::conformance_main!(sandbox_testkit::model::ModelFixture::new());
