//! The real router, fed, attached to and lost.

use super::*;

/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(20);

async fn started() -> Router {
    Router::spawn(default_config()).await.unwrap()
}

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

fn commands(name: &str) -> Topic {
    Topic::Commands(host(name))
}

async fn next(link: &mut CommandLink) -> Option<Delivery> {
    timeout(DEADLINE, link.next()).await.unwrap()
}

fn message(bytes: &[u8]) -> Option<Delivery> {
    Some(Delivery::Message(bytes.to_vec()))
}

#[tokio::test]
async fn a_link_gets_its_hosts_commands_in_order_and_nobody_elses() {
    let router = started().await;
    let mut link = router.link(&host("edge-1")).await.unwrap();
    let mut other = router.link(&host("edge-2")).await.unwrap();
    for (name, payload) in [("edge-1", b"one"), ("edge-2", b"two"), ("edge-1", b"six")] {
        router.publish(&commands(name), payload).await.unwrap();
    }
    assert_eq!(next(&mut link).await, message(b"one"));
    assert_eq!(next(&mut link).await, message(b"six"));
    assert_eq!(next(&mut other).await, message(b"two"));
}

#[tokio::test]
async fn a_message_with_no_link_is_nobodys() {
    let router = started().await;
    router.publish(&commands("edge-1"), b"early").await.unwrap();
    let mut link = router.link(&host("edge-1")).await.unwrap();
    router.publish(&commands("edge-1"), b"").await.unwrap();
    assert_eq!(next(&mut link).await, message(b""));
}

#[tokio::test]
async fn a_host_attaches_and_detaches_fifty_times() {
    let router = started().await;
    for round in 0..50_u8 {
        let mut link = router.link(&host("edge-1")).await.unwrap();
        router.publish(&commands("edge-1"), &[round]).await.unwrap();
        assert_eq!(next(&mut link).await, message(&[round]));
        // Left unread while it detaches.
        router.publish(&commands("edge-1"), b"late").await.unwrap();
        drop(link);
        if round % 10 == 0 {
            router.probe().await.unwrap();
        }
    }
    router.probe().await.unwrap();
}

#[tokio::test]
async fn a_host_is_not_attached_twice() {
    let router = started().await;
    let link = router.link(&host("edge-1")).await.unwrap();
    let second = tokio::spawn({
        let router = router.clone();
        async move { router.link(&host("edge-1")).await.map(drop) }
    });
    let turn = router.slot(&host("edge-1")).1;
    assert_eq!(turn.available_permits(), 0);
    drop(link);
    timeout(DEADLINE, second).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_link_that_nobody_reads_costs_a_bounded_amount_and_says_what_it_lost() {
    let router = started().await;
    let mut link = router.link(&host("edge-1")).await.unwrap();
    let flood = vec![7; 1024];
    for _ in 0..3_000 {
        router.publish(&commands("edge-1"), &flood).await.unwrap();
    }
    router.probe().await.unwrap();
    router.publish(&commands("edge-1"), b"last").await.unwrap();
    let (mut got, mut missed) = (0, false);
    loop {
        match next(&mut link).await {
            Some(Delivery::Missed) => missed = true,
            Some(Delivery::Message(bytes)) if bytes == b"last" => break,
            Some(Delivery::Message(_)) => got += 1,
            None => panic!("the router is gone"),
        }
    }
    assert!(missed && got < 3_000, "{got} of 3000");
    drop(link);
    let mut link = router.link(&host("edge-1")).await.unwrap();
    router.publish(&commands("edge-1"), b"again").await.unwrap();
    assert_eq!(next(&mut link).await, message(b"again"));
}

#[tokio::test]
async fn a_link_dropped_while_the_router_waits_for_it_does_not_kill_the_router() {
    let router = started().await;
    for _ in 0..5 {
        let link = router.link(&host("edge-1")).await.unwrap();
        for _ in 0..600 {
            router.publish(&commands("edge-1"), b"x").await.unwrap();
        }
        drop(link);
    }
    router.probe().await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_routers_thread_is_noticed_at_once() {
    let router = started().await;
    let mut link = router.link(&host("edge-1")).await.unwrap();
    let watcher = tokio::spawn({
        let router = router.clone();
        async move { router.failed().await }
    });
    router.die().await;
    timeout(PROBE_EVERY, watcher).await.unwrap().unwrap();
    assert_eq!(next(&mut link).await, None);
    assert!(router.link(&host("edge-2")).await.is_err());
    assert!(router.probe().await.is_err());
}

#[tokio::test]
async fn a_configuration_that_would_kill_the_router_is_refused() {
    for change in [
        |config: &mut RouterConfig| config.max_segment_size = 1023,
        |config: &mut RouterConfig| config.max_segment_count = 0,
        |config: &mut RouterConfig| config.max_connections = 0,
    ] {
        let mut config = default_config();
        change(&mut config);
        assert!(Router::spawn(config).await.is_err());
    }
}

#[test]
fn the_section_of_the_configuration_reads_as_rumqttd_writes_it() {
    let text = "max_connections = 64\nmax_outgoing_packet_count = 200\n\
                max_segment_size = 65536\nmax_segment_count = 2\n";
    let config: RouterConfig = toml::from_str(text).unwrap();
    assert_eq!(config.max_connections, 64);
    check_config(&config).unwrap();
}
