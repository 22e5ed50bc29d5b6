//! Who is there, and what the time is.

use super::*;

#[tokio::test]
async fn presence_and_sightings_are_known_and_the_plane_is_healthy() {
    let (_place, plane, _) = enrolled().await;
    let subject = Subject::Host(edge());
    plane.connected(&subject, 1);
    assert!(plane.is_connected(&edge()) && plane.connected_hosts() == 1);
    let news = News::Status(Status {
        generation: 1,
        version: "0".into(),
        start: [0; 8].into(),
        engine: true,
        sandboxes: vec![report::Sighting {
            sandbox: build(),
            state: State::Paused,
        }],
        skew_ms: Some(7_200_000),
    });
    assert_eq!(
        plane
            .accept_report(&edge(), signed_report(10, 1, news))
            .await,
        Accepted::Stored
    );
    assert_eq!(state(&plane).0, "paused");
    assert!(plane.last_seen(&edge()).is_some());
    plane.disconnected(&subject, 1);
    assert!(!plane.is_connected(&edge()));
    let health = plane.health().await;
    assert_eq!((health.durability, health.reasons), ("os", vec![]));
    assert!(health.router_probe.is_some());
    plane.settle().await;
    let names = audit_names(&plane);
    assert!(
        names.ends_with(&["host.connected".to_owned(), "host.disconnected".to_owned()]),
        "{names:?}"
    );
}

#[tokio::test]
async fn time_never_goes_back_over_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let plane = open_in(place.path()).await;
    let ahead = plane.now().plus(Duration::from_secs(3600));
    plane.store().advance_time(ahead.0).unwrap();
    drop(plane);
    assert!(open_in(place.path()).await.now() >= ahead);
}
