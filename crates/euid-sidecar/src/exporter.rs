//! The recorder of metrics: the buckets of the histograms, and the series that are there from the start.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::access;

/// Installs the recorder for this process, before anything that counts is made.
///
/// # Errors
///
/// If there is one already.
pub(crate) fn install() -> Result<PrometheusHandle, String> {
    let installed = builder().and_then(PrometheusBuilder::install_recorder);
    let handle = installed.map_err(|error| format!("metrics: {error}"))?;
    access::add_series();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let calls = ["euid_refresh_duration_seconds", "euid_generate_duration_seconds"];
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &PAGES)?
        .set_buckets_for_metric(Matcher::Full("euid_cookie_bytes".to_owned()), &BYTES)?;
    calls
        .into_iter()
        .try_fold(builder, |builder, name| builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &CALLS))
}

/// Seconds of what a page waits for: the sidecar, the store. Pages take less than 50 ms.
const PAGES: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Seconds of a call to the operator, which ends after 10 s at the latest.
const CALLS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Of cookies. Browsers keep at most 4096 bytes of one.
const BYTES: [f64; 7] = [512.0, 768.0, 1024.0, 1536.0, 2048.0, 3072.0, 4096.0];
