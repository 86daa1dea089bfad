//! Makes the gRPC service `tv.Ads` of the example `tonic_mux`, without protoc.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        let method = Method::builder().name(name).route_name(route).input_type(input).output_type(output);
        method.codec_path("tonic_prost::ProstCodec").build()
    };
    let ads = Service::builder()
        .package("tv")
        .name("Ads")
        .method(method("token", "Token", "super::Empty", "super::Token"))
        .method(method("login", "Login", "super::Login", "super::Empty"))
        .method(method("logout", "Logout", "super::Empty", "super::Empty"));
    Builder::new().compile(&[ads.build()]);
}
