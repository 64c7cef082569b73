//! `http.md`: the routes of `crate::http`.

use super::{NOTE, row};
use crate::auth::{Need, Scope};
use crate::routes::{FLOW_VERBS, ROUTES, SERVICES};

pub fn page() -> String {
    let mut out = format!(
        "# HTTP\n\n{NOTE}\n\n\
         One port, `listen.http` of `tidemill.yaml`, for HTTP/1.1 and HTTP/2, in the clear or by `tls`. As long as there are no tokens, \
         only programs on this machine may call, and a request whose `Host` or `Origin` is not this machine is refused with 403. As \
         soon as there is one ([access.md](../guides/access.md)), every request needs one, as `Authorization: Bearer TOKEN`: without a \
         good one the answer is 401, with one that lacks the route's scope 403. What a token has open ends when it is revoked or expires. Answers are JSON unless said otherwise; \
         errors are problems, see [errors.md](errors.md). Keys may be added to an answer, and are never renamed.\n\n\
         | method | path | scope | answer |\n|---|---|---|---|\n"
    );
    for route in &ROUTES {
        out.push_str(&row(&[route.method, &format!("`{}`", route.shown), need(route.need), route.what]));
    }
    out.push_str("\n## Scopes\n\n| scope | what it lets a caller do |\n|---|---|\n");
    for (_, name, what) in Scope::ALL {
        out.push_str(&row(&[&format!("`{name}`"), what]));
    }
    out.push_str("\n## Services of gRPC\n\nOn the same port, and over gRPC-Web. Who may not call is told `UNAUTHENTICATED` or `PERMISSION_DENIED`.\n\n| service | scope |\n|---|---|\n");
    for (service, asked) in SERVICES {
        out.push_str(&row(&[&format!("`{service}`"), need(asked)]));
    }
    out.push_str("\n## Verbs of a flow\n\n| verb | what it does, and the answer |\n|---|---|\n");
    for (verb, what) in FLOW_VERBS {
        out.push_str(&row(&[&format!("`{verb}`"), what]));
    }
    out.push_str(
        "\n## Examples\n\n```\n\
         curl -s http://127.0.0.1:7070/api/v1/status\n\
         curl -s -X POST http://127.0.0.1:7070/api/v1/flows/shop_to_out:pause\n\
         curl -s -X POST http://127.0.0.1:7070/api/v1/flows/shop_to_out:resnapshot -d '{\"tables\": [\"shop.orders\"]}'\n\
         curl -s -H @header http://127.0.0.1:7070/api/v1/caller    # the file holds: Authorization: Bearer TOKEN\n\
         curl -s -N 'http://127.0.0.1:7070/api/v1/sources/shop/changes?from=start&follow=true&table=shop.*'\n\
         ```\n",
    );
    out
}

/// As the table has it.
fn need(need: Need) -> &'static str {
    match need {
        Need::Nothing => "none, and no token",
        Need::Token => "any",
        Need::Scope(scope) => scope.name(),
    }
}
