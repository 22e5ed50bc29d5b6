//! Tokens say what their minter was told, and what they are checked for is what they grant.

use proptest::{collection::vec, option, prelude::*, sample::select};
use protocol::{
    key::{Host, Issuer, Public, Sandbox},
    limits::{HOST_TOKEN_LIFE_S_MAX, SANDBOX_TOKEN_LIFE_S_MAX},
    scope::{Permission, Scope},
    time::UnixMillis,
    token::{
        Claims, Confirmation, CoseKey, HostTerms, check, mint_host, mint_sandbox, peek, seal_claims,
    },
};

use crate::any::{cases, host, number, public, sandbox, secret};

fn scope() -> impl Strategy<Value = Scope> {
    use Permission::{Pub, Sub};
    let filter = "[a-z0-9!]{1,8}(/[a-z+]){0,3}(/#)?";
    let permissions = select(vec![vec![Pub], vec![Sub], vec![Pub, Sub]]);
    vec((filter, permissions), 0..=16).prop_map(Scope::new)
}

fn claims() -> impl Strategy<Value = Claims> {
    let text = || "[ -~é]{0,60}";
    (
        [text(), text(), text()],
        (number(), option::of(number()), number(), any::<[u8; 8]>()),
        (number(), number(), any::<[u8; 32]>()),
        (scope(), option::of(scope()), option::of(number())),
    )
        .prop_map(|([issuer, subject, audience], dates, key, scopes)| Claims {
            issuer,
            subject,
            audience,
            expires_s: dates.0,
            not_before_s: dates.1,
            issued_s: dates.2,
            id: dates.3.into(),
            confirmation: Confirmation {
                key: CoseKey {
                    kty: key.0,
                    crv: key.1,
                    x: key.2.into(),
                },
            },
            scope: scopes.0,
            delegable: scopes.1,
            generation: scopes.2,
        })
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn claims_are_read_as_they_were_written(claims in claims()) {
        let token = seal_claims(&secret::<Issuer>(5), &claims, None);
        prop_assert_eq!(peek(&token), Ok(claims));
    }

    #[test]
    fn what_is_minted_is_granted_as_it_was_meant(
        host in host(), sandbox in sandbox(), sandbox_key in public::<Sandbox>(),
        ids: ([u8; 8], [u8; 8]), generation in number(),
        issued in 1 << 40..1_u64 << 50, life_s in 0..=HOST_TOKEN_LIFE_S_MAX, later_s in 0..3600_u64,
    ) {
        let issuer = secret::<Issuer>(5);
        let issuers: [Public<Issuer>; 1] = [issuer.public()];
        let host_key = secret::<Host>(2);
        let now = UnixMillis(issued);
        let terms = HostTerms {
            audience: "outhaul-1", host: &host, key: host_key.public(), generation, id: ids.0, issued: now, life_s,
        };
        let token = mint_host(&issuer, &terms);
        let grant = check(&token, &issuers, "outhaul-1", now).unwrap();
        prop_assert_eq!(grant.subject.to_string(), host.to_string());
        prop_assert_eq!((grant.id, grant.generation), (ids.0, generation));
        prop_assert_eq!(grant.expires_s, now.seconds() + life_s);
        prop_assert_eq!(grant.holder, host_key.public().as_holder());
        let topics = ["commands", "reports", "x/events"].map(|end| format!("v1/{host}/{end}"));
        for (topic, may_pub, may_sub) in [(0, false, true), (1, true, false), (2, false, false)] {
            let rule = |permission| grant.scope.rule_for(&topics[topic], permission).is_some();
            prop_assert_eq!((rule(Permission::Pub), rule(Permission::Sub)), (may_pub, may_sub));
        }

        let later = UnixMillis(issued + later_s * 1000);
        let inner = mint_sandbox(&host_key, &token, &sandbox, &sandbox_key, ids.1, later).unwrap();
        let ends_s = (later.seconds() + SANDBOX_TOKEN_LIFE_S_MAX).min(grant.expires_s);
        let checked = check(&inner, &issuers, "outhaul-1", later);
        // A parent that has just ended is still good for its leeway, and so is what is minted inside it.
        prop_assert_eq!(checked.is_ok(), later.seconds() < ends_s + 60);
        if let Ok(inner) = checked {
            prop_assert_eq!(inner.subject.to_string(), format!("{host}/{sandbox}"));
            prop_assert_eq!((inner.id, inner.generation, inner.expires_s), (ids.1, generation, ends_s));
            prop_assert_eq!(inner.holder, sandbox_key.as_holder());
            let own = format!("v1/{host}/{sandbox}/events");
            prop_assert_eq!(inner.scope, Scope::one(own, Permission::Pub));
        }
    }
}
