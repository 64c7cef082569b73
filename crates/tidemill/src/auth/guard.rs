//! What stands in front of every route.

use super::caller::{Caller, Scope};
use super::cors::{self, Origins, Page, is_loopback, is_loopback_ip};
use super::ending::{Ending, Manner, UNAUTHENTICATED};
use super::tokens::{Access, PREFIX, RANDOM_CHARS, Refusal};
use crate::http::problem;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use base::Code;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the body of a request may take to come, but for streams of gRPC.
const BODY_WAIT: Duration = Duration::from_secs(60);
/// What a caller without a token is told to bring.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"tidemill\"");
/// The numbers that gRPC has for the other refusals.
const INVALID_ARGUMENT: u16 = 3;
const PERMISSION_DENIED: u16 = 7;
const INTERNAL: u16 = 13;
/// Words in a query under which programs put tokens, where logs and histories keep them.
const QUERY_WORDS: [&str; 4] = ["token", "access_token", "bearer", "authorization"];

/// The other end of a connection; the listener puts it into every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it tells nothing.
    Nothing,
    /// A good token, whatever it is for.
    Token,
    Scope(Scope),
}

/// What [`guard`] goes by.
#[derive(Clone)]
pub struct Gate {
    pub access: Access,
    pub origins: Origins,
    /// What the route of this method and path, as the router has it, asks for.
    pub needs: fn(&Method, &str) -> Need,
}

/// Puts the gate in front of all routes of `router`.
pub fn guard<S: Clone + Send + Sync + 'static>(router: Router<S>, gate: Gate) -> Router<S> {
    router.layer(middleware::from_fn_with_state(gate, pass))
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let manner = Manner::of(request.headers().get(header::CONTENT_TYPE));
    let authority = cors::authority(request.uri(), request.headers()).map(|host| host.map(str::to_owned));
    let page = match &authority {
        Ok(authority) => gate.origins.judge(request.headers(), authority.as_deref()),
        Err(()) => Page::Foreign,
    };
    if let Page::Allowed(origin) = &page
        && cors::is_question(request.method(), request.headers())
    {
        return cors::yes(origin, request.headers());
    }
    let mut response = match judge(&gate, &request, authority, &page) {
        Ok(caller) => serve(request, caller, next).await,
        Err(refusal) => refuse(manner, &refusal, request.headers().get(header::CONTENT_TYPE)),
    };
    if let Page::Allowed(origin) = &page {
        cors::mark(&mut response, origin);
    }
    response
}

/// Runs the request for its caller, for as long as that may.
async fn serve(mut request: Request, caller: Option<Caller>, next: Next) -> Response {
    let is_stream = Manner::of(request.headers().get(header::CONTENT_TYPE)) != Manner::Break;
    if !is_stream && !request.body().is_end_stream() {
        request = request.map(|body| Ending::request(body, BODY_WAIT));
    }
    let Some(caller) = caller else { return next.run(request).await };
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    // A body whose length is known is there already.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let manner = Manner::of(response.headers().get(header::CONTENT_TYPE));
    response.map(|body| Ending::answer(body, manner, async move { caller.ended().await }))
}

/// The caller, where the route wants one. `Err` is why it may not.
fn judge(
    gate: &Gate,
    request: &Request,
    authority: Result<Option<String>, ()>,
    page: &Page,
) -> Result<Option<Caller>, Refusal> {
    let headers = request.headers();
    let unclear =
        |what: &str| Refusal::new(Code::Invalid, format!("the request is unclear: {what}"), "send it once");
    let authority = authority.map_err(|()| unclear("it names more than one host"))?;
    if cors::SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Err(unclear("a header stands there twice"));
    }
    refuse_token_in_url(request.uri())?;
    if *page == Page::Foreign {
        let hint = "name the site in tidemill.yaml: http: {cors: [\"https://shop.example\"]}";
        return Err(Refusal::new(Code::PermissionDenied, "pages of this site may not call", hint));
    }
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let need = path.map_or(Need::Token, |path| (gate.needs)(request.method(), path));
    let caller = if gate.access.is_closed() {
        match (need, bearer(headers)) {
            // Who shows a good token there may be told more.
            (Need::Nothing, token) => {
                return Ok(token.ok().and_then(|token| gate.access.who(token).ok()));
            }
            (_, token) => gate.access.who(token?)?,
        }
    } else {
        let peer = request.extensions().get::<Peer>();
        if !peer.is_some_and(|peer| is_loopback_ip(peer.0.ip()))
            || !authority.as_deref().is_none_or(is_loopback)
        {
            return Err(Refusal::new(
                Code::PermissionDenied,
                "this address is for programs on this machine, as long as there are no tokens",
                "call it as 127.0.0.1 or localhost, and from no page of another site; or make a token: docs/guides/access.md",
            ));
        }
        gate.access.local_caller()
    };
    match need {
        Need::Scope(scope) if !caller.may(scope) => {
            let message = format!("the token `{}` lacks the scope `{}`", caller.name, scope.name());
            Err(Refusal::new(
                Code::PermissionDenied,
                message,
                "make a token that has it: `tidemill token create`",
            ))
        }
        _ => Ok(Some(caller)),
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let missing = || {
        let hint = "send it as: Authorization: Bearer TOKEN; `tidemill token create` makes one";
        Refusal::new(Code::Unauthenticated, "a token is needed", hint)
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim_start_matches(' ')) } else { Err(missing()) }
}

/// A token in the URL is in logs and histories by now.
fn refuse_token_in_url(uri: &Uri) -> Result<(), Refusal> {
    let text = uri.path_and_query().map_or("", |whole| whole.as_str());
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let token = |rest: &str| rest.chars().take(RANDOM_CHARS).filter(|c| is_part(*c)).count() == RANDOM_CHARS;
    let shown = text.split(PREFIX).skip(1).any(token);
    let named = uri.query().unwrap_or_default().split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        QUERY_WORDS.iter().any(|word| name.eq_ignore_ascii_case(word))
    });
    if !shown && !named {
        return Ok(());
    }
    let hint = "send it as: Authorization: Bearer TOKEN; and revoke this one, for addresses are kept in logs";
    Err(Refusal::new(Code::Invalid, "a token does not belong into the address", hint))
}

/// As a problem, or in the words of gRPC.
fn refuse(manner: Manner, refusal: &Refusal, content_type: Option<&HeaderValue>) -> Response {
    metrics::counter!(base::metrics::NODE_REFUSED, "code" => refusal.code.name()).increment(1);
    tracing::debug!(code = refusal.code.name(), reason = refusal.message, "a request is refused");
    if manner == Manner::Break {
        let mut response = problem(refusal.code, refusal.message.clone(), &refusal.hint);
        if refusal.code == Code::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        return response;
    }
    let status = match refusal.code {
        Code::Unauthenticated => UNAUTHENTICATED,
        Code::PermissionDenied => PERMISSION_DENIED,
        Code::Invalid => INVALID_ARGUMENT,
        _ => INTERNAL,
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    if let Some(kind) = content_type {
        headers.insert(header::CONTENT_TYPE, kind.clone());
    }
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(status));
    // Percent-encoded, as gRPC asks; what is in our messages beside ASCII is nothing.
    let plain = |c: char| if c.is_ascii_graphic() && c != '%' || c == ' ' { c } else { '?' };
    let message: String = refusal.message.chars().map(plain).collect();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tokens::TokenRequest;
    use axum::body::{Bytes, to_bytes};
    use axum::routing::{get, post};
    use catalog::Catalog;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use std::convert::Infallible;

    const STREAM: &str = "/tidemill.v1.Subscriptions/Subscribe";

    fn needs(_: &Method, path: &str) -> Need {
        match path {
            STREAM => Need::Scope(Scope::Subscribe),
            "/open" => Need::Nothing,
            _ => Need::Scope(Scope::Admin),
        }
    }

    /// Two routes behind a guard, and how to call them from somewhere.
    struct Door {
        access: Access,
        router: Router,
        _dir: tempfile::TempDir,
    }

    impl Door {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let access = Access::open(Catalog::open(&dir.path().join("catalog.db")).unwrap()).unwrap();
            let endless = || async {
                let parts =
                    futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"x")));
                ([(header::CONTENT_TYPE, "application/grpc")], Body::from_stream(parts))
            };
            let router = Router::new().route(STREAM, post(endless)).route("/open", get(|| async { "ok" }));
            let gate = Gate { access: access.clone(), origins: Origins::default(), needs };
            Self { access, router: guard(router, gate), _dir: dir }
        }

        async fn call(&self, from: &str, headers: &[(&str, &str)], path: &str) -> Response {
            let mut request = axum::http::Request::builder().uri(path);
            request = request.method(if path == STREAM { Method::POST } else { Method::GET });
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(Peer(from.parse().unwrap()));
            TowerToHyperService::new(self.router.clone()).call(request).await.unwrap()
        }

        fn token(&self, scope: &str) -> String {
            let (rows, columns) = Default::default();
            let request = TokenRequest {
                name: scope.into(),
                scopes: vec![scope.into()],
                expires_ms: None,
                rows,
                columns,
            };
            self.access.create(request).unwrap().0.expose().to_owned()
        }
    }

    #[tokio::test]
    async fn without_tokens_only_this_machine_may_call() {
        let door = Door::new();
        for (from, host, wanted) in [
            ("127.0.0.1:9", "localhost", 200),
            ("[::1]:9", "[::1]:7070", 200),
            ("[::ffff:127.0.0.1]:9", "127.0.0.1", 200),
            ("127.0.0.1:9", "evil.example", 403),
            ("192.0.2.1:9", "localhost", 403),
            ("[2001:db8::1]:9", "127.0.0.1", 403),
        ] {
            let status = door.call(from, &[("host", host)], "/open").await.status();
            assert_eq!(status, wanted, "{from} {host}");
        }
        let refused = door.call("192.0.2.1:9", &[("content-type", "application/grpc")], STREAM).await;
        assert_eq!(
            (refused.status(), &refused.headers()["grpc-status"]),
            (StatusCode::OK, &"7".parse().unwrap())
        );
        let token = door.token("read");
        let from_afar =
            ("192.0.2.1:9", [("host", "node.example"), ("authorization", &*format!("Bearer {token}"))]);
        assert_eq!(door.call(from_afar.0, &from_afar.1, "/open").await.status(), 200);
        assert_eq!(door.call("127.0.0.1:9", &[("host", "localhost")], "/closed").await.status(), 401);
    }

    #[tokio::test]
    async fn a_stream_of_grpc_ends_with_a_status_when_its_token_does() {
        let door = Door::new();
        let (read, subscribe) = (door.token("read"), door.token("subscribe"));
        let ask = async |token: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [("content-type", "application/grpc"), ("authorization", bearer.as_str())];
            door.call("192.0.2.1:9", &headers, STREAM).await
        };
        for (token, wanted) in [("tidemill_x", "16"), (read.as_str(), "7")] {
            let refused = ask(token).await;
            assert_eq!(
                (refused.status(), refused.headers()["grpc-status"].to_str().unwrap()),
                (StatusCode::OK, wanted)
            );
            assert_eq!(to_bytes(refused.into_body(), 1).await.unwrap().len(), 0);
        }
        let mut body = ask(&subscribe).await.into_body();
        let mut next = async || {
            let frame =
                std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await;
            frame.map(Result::unwrap)
        };
        assert!(next().await.unwrap().is_data());
        door.access.revoke("subscribe", false).unwrap();
        let trailers = next().await.unwrap().into_trailers().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"16".parse().unwrap(), &"the token was revoked".parse().unwrap())
        );
        assert!(next().await.is_none());
    }

    #[test]
    fn tokens_in_addresses_are_known() {
        let token = format!("{PREFIX}{}", "a".repeat(RANDOM_CHARS));
        for (uri, wanted) in [
            (format!("/x?y={token}"), false),
            (format!("/x/{token}?y=1"), false),
            ("/x?ACCESS_TOKEN=1".to_owned(), false),
            ("/x?table=shop.tidemill_progress".to_owned(), true),
            ("/api/v1/tokens/phone:revoke?tokens=1".to_owned(), true),
        ] {
            assert_eq!(refuse_token_in_url(&uri.parse().unwrap()).is_ok(), wanted, "{uri}");
        }
    }
}
