//! `health`: asks the admin listener whether the sidecar lives, for the health check of a container.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::listen::reachable;

/// # Errors
///
/// If there is no answer within 2 s, or another than 200.
pub(crate) async fn health(admin: Address) -> Result<(), String> {
    let asked = async {
        match &admin {
            Address::Tcp(address) => get_health(TcpStream::connect(reachable(*address)).await?).await,
            Address::Unix(path) => get_health(UnixStream::connect(path).await?).await,
        }
    };
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(format!("{admin}: {status}")),
        Ok(Err(error)) => Err(format!("{admin}: {error}")),
        Err(_) => Err(format!("{admin}: no answer within 2 s")),
    }
}

async fn get_health(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<StatusCode> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/healthz").header(HOST, "localhost").body(Body::empty()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    connection.abort();
    Ok(response.status())
}

const DEADLINE: Duration = Duration::from_secs(2);
