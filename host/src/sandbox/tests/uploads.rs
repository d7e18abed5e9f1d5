//! Bad uploads are refused with a message that says what they are, and good ones can be compared.

use super::*;

async fn refused(bytes: &[u8]) -> String {
    SANDBOX.compile(Behalf::Host, Bytes::copy_from_slice(bytes)).await.expect_err("a bad upload").to_string()
}

#[tokio::test]
async fn the_refusal_of_other_files_says_what_they_are() {
    assert!(refused(b"").await.contains("it is empty"));
    assert!(refused(b"hello there").await.contains("doesn't begin with"));
    assert!(refused(b"(component)").await.contains("WebAssembly text"));
    assert!(refused(b"\0asm\x01\0\0\0").await.contains("core WebAssembly module"));
    assert!(refused(b"\0as").await.contains("cut off"));
}

#[tokio::test]
async fn a_component_that_is_cut_off_or_damaged_is_refused() {
    let whole = component("echo");
    for end in [12, whole.len() / 2, whole.len() - 1] {
        let message = refused(&whole[..end]).await;
        assert!(message.contains("cut off") || message.contains("not a valid component"), "{end}: {message}");
    }
    let mut spoilt = whole.to_vec();
    let middle = spoilt.len() / 3;
    spoilt[middle..middle + 200].fill(0xff);
    assert!(
        refused(&spoilt).await.contains("not a valid component")
            || refused(&spoilt).await.contains("cut off")
    );
}

#[tokio::test]
async fn an_unknown_import_is_named_with_the_offered_ones() {
    let message = refused(&component("stranger")).await;
    assert!(message.contains("`acme:secret/vault@1.0.0`"), "{message}");
    assert!(message.contains("aster:step/context@0.1.0"), "{message}");
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused() {
    let sandbox = Sandbox::new(Options { max_component_bytes: 1000, max_instances: 2, ..Options::default() })
        .expect("a sandbox");
    let error = sandbox.compile(Behalf::Host, component("echo")).await.expect_err("too large");
    assert!(matches!(error, UploadError::TooLarge { limit: 1000, .. }), "{error}");
}

#[tokio::test]
async fn a_component_that_needs_too_much_memory_to_start_is_refused() {
    let sandbox =
        Sandbox::new(Options { max_memory_bytes: 64 << 10, max_instances: 2, ..Options::default() })
            .expect("a sandbox");
    let error = sandbox.compile(Behalf::Host, component("echo")).await.expect_err("more than a page");
    assert!(matches!(error, UploadError::TooBig(_)), "{error}");
}

#[tokio::test]
async fn versions_of_a_component_are_compared_by_their_exports() {
    let mut exports = Vec::new();
    for name in ["greeter-v1", "greeter-v2", "greeter-v3"] {
        exports.push(SANDBOX.compile(Behalf::Host, component(name)).await.expect(name).exports().clone());
    }
    let fits = |new: usize| aster_core::wit::fits::fits_calls(&exports[0], &exports[new], [(None, "greet")]);
    assert_eq!(fits(1), [], "a field more in a result");
    assert_eq!(fits(2).len(), 1, "a parameter more");
}

/// WIT can't describe this component, and the decoder of WIT panics on it.
#[tokio::test]
async fn a_function_under_an_interfaces_name_is_described_without_wit() {
    const BYTES: &str = "0061736d0d000100011f0061736d0100000001040160000003020100070501016600000a040102000b\
        0204010000000607010000010001660705014000010008060100000000000b0b010005613a622f63010000";
    let bytes = Bytes::from(hex::decode(BYTES).expect("they are hexadecimal digits"));
    let loaded = SANDBOX.compile(Behalf::Host, bytes.clone()).await.expect("Wasmtime takes it");
    let wit = wit_text(bytes, loaded.exports().clone()).await.expect("it is described");
    assert!(wit.contains("WIT can't describe this component's world"), "{wit}");
}
