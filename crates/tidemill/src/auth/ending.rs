//! Bodies that end before their time: an answer whose caller is let in no longer, and a request that takes too long to come.

use super::Ended;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// What gRPC says for a caller that is not known (any more).
pub(super) const UNAUTHENTICATED: u16 = 16;
/// The flag of a frame of gRPC-Web that holds the trailers.
const WEB_TRAILERS: u8 = 0x80;

/// How an answer is ended, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It breaks off, so that nobody takes it for whole.
    Break,
    Grpc,
    GrpcWeb,
    GrpcWebText,
}

impl Manner {
    pub(super) fn of(content_type: Option<&HeaderValue>) -> Self {
        let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text.strip_prefix("application/grpc") {
            None => Self::Break,
            Some(rest) if rest.starts_with("-web-text") => Self::GrpcWebText,
            Some(rest) if rest.starts_with("-web") => Self::GrpcWeb,
            Some(_) => Self::Grpc,
        }
    }

    fn last(self, message: &'static str) -> Result<Frame<Bytes>, axum::Error> {
        match self {
            Self::Break => Err(axum::Error::new(std::io::Error::other(message))),
            Self::Grpc => {
                let mut trailers = HeaderMap::new();
                let status = (HeaderName::from_static("grpc-status"), HeaderValue::from(UNAUTHENTICATED));
                trailers.insert(status.0, status.1);
                let message = HeaderValue::from_static(message);
                trailers.insert(HeaderName::from_static("grpc-message"), message);
                Ok(Frame::trailers(trailers))
            }
            Self::GrpcWeb => Ok(Frame::data(web_trailers(message).into())),
            Self::GrpcWebText => Ok(Frame::data(STANDARD.encode(web_trailers(message)).into())),
        }
    }
}

/// The trailers as gRPC-Web puts them into the body.
fn web_trailers(message: &str) -> Vec<u8> {
    let text = format!("grpc-status: {UNAUTHENTICATED}\r\ngrpc-message: {message}\r\n");
    let mut out = vec![WEB_TRAILERS];
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    out
}

type Until = Pin<Box<dyn Future<Output = Result<Frame<Bytes>, axum::Error>> + Send>>;

/// A body that ends when its future does.
pub(super) struct Ending {
    body: Body,
    /// `None` when it has ended.
    until: Option<Until>,
}

impl Ending {
    /// An answer to a caller, whose body goes on no longer than `ended` waits.
    pub(super) fn answer(
        body: Body,
        manner: Manner,
        ended: impl Future<Output = Ended> + Send + 'static,
    ) -> Body {
        let until: Until = Box::pin(async move { manner.last(ended.await.message()) });
        Body::new(Self { body, until: Some(until) })
    }

    /// A request whose body must have come by then.
    pub(super) fn request(body: Body, wait: std::time::Duration) -> Body {
        let until: Until = Box::pin(async move {
            tokio::time::sleep(wait).await;
            Manner::Break.last("the request's body took too long to come")
        });
        Body::new(Self { body, until: Some(until) })
    }
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(until) = &mut this.until else { return Poll::Ready(None) };
        // Asked first: a body that always has more must end as well.
        if let Poll::Ready(last) = until.as_mut().poll(context) {
            this.until = None;
            // What feeds the body stops.
            this.body = Body::empty();
            return Poll::Ready(Some(last));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_none() {
            this.until = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.until.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use std::convert::Infallible;
    use tokio::sync::oneshot;

    fn endless() -> Body {
        Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"x"))))
    }

    async fn parts(body: Body) -> Vec<Result<Frame<Bytes>, axum::Error>> {
        let mut body = body;
        let mut out = Vec::new();
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            out.push(frame);
        }
        out
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_caller_in_the_words_of_its_protocol() {
        for (manner, wanted) in [
            (Manner::Grpc, None),
            (Manner::GrpcWeb, Some(web_trailers("the token was revoked"))),
            (Manner::GrpcWebText, Some(STANDARD.encode(web_trailers("the token was revoked")).into_bytes())),
        ] {
            let (sender, ended) = oneshot::channel();
            let mut body = Ending::answer(endless(), manner, async { ended.await.unwrap() });
            let first = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "x");
            sender.send(Ended::Revoked).unwrap();
            let mut rest = parts(body).await;
            assert_eq!(rest.len(), 1, "{manner:?}");
            let last = rest.remove(0).unwrap();
            match wanted {
                None => assert_eq!(last.into_trailers().unwrap()["grpc-status"], "16"),
                Some(wanted) => assert_eq!(last.into_data().unwrap(), wanted),
            }
        }
        let ended = std::future::ready(Ended::Expired);
        let error = to_bytes(Ending::answer(endless(), Manner::Break, ended), 9).await.unwrap_err();
        assert!(format!("{error:?}").contains("has expired"), "{error:?}");
        let whole = Ending::answer(Body::from("all"), Manner::Break, std::future::pending());
        assert_eq!(to_bytes(whole, 9).await.unwrap(), "all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_come_is_given_up() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        let body = Ending::request(never, std::time::Duration::from_secs(60));
        assert!(format!("{:?}", to_bytes(body, 9).await.unwrap_err()).contains("took too long"));
    }

    #[test]
    fn the_manner_is_that_of_the_content_type() {
        let of = |text| Manner::of(Some(&HeaderValue::from_static(text)));
        assert_eq!(of("application/grpc+proto"), Manner::Grpc);
        assert_eq!(of("application/grpc-web+proto"), Manner::GrpcWeb);
        assert_eq!(of("application/grpc-web-text"), Manner::GrpcWebText);
        assert_eq!((of("application/json"), Manner::of(None)), (Manner::Break, Manner::Break));
    }
}
