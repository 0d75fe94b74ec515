use proptest::prelude::*;

use super::*;
use crate::budget::Budget;

const STALL: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn stream(expected: Option<u64>) -> Stream {
    let budget = Budget::new(1 << 20);
    let head = Head { metadata: Arc::from(&b"head"[..]), tags: Tags::NONE, expected };
    Stream::new(head, Arc::new(Charge::of_taken(&budget, 0)))
}

fn whole(bytes: &[u8]) -> Body {
    let charge = Arc::new(Charge::of_taken(&Budget::new(0), 0));
    Body::new(vec![Fragment::new(Arc::from(bytes))], Some(bytes.len() as u64), charge)
}

fn flight() -> Flight {
    Flight::new(at(0), 3)
}

fn awaits_head() -> Flight {
    flight()
}

fn vacant() -> Flight {
    let mut flight = flight();
    flight.join(at(0), STALL).unwrap();
    flight.vacate(0).unwrap();
    flight
}

fn streaming() -> Flight {
    let mut flight = flight();
    flight.start(0, stream(None), at(0)).unwrap();
    flight.push(0, Some(Fragment::new(Arc::from(&b"abc"[..]))), 3, 0, at(0)).unwrap();
    flight
}

fn ended(end: End) -> Flight {
    let mut flight = flight();
    flight.conclude(0, end).unwrap();
    flight
}

fn finished() -> Flight {
    let mut flight = streaming();
    flight.finish(0, Some(&whole(b"abc"))).unwrap();
    flight
}

fn broken() -> Flight {
    let mut flight = streaming();
    flight.vacate(0).unwrap();
    flight
}

fn windowed() -> Flight {
    let mut flight = streaming();
    flight.stream(0).unwrap().not_kept = Some(Reason::TooLarge);
    flight
}

/// What each state says to: join, start, push, finish, vacate, conclude, take over after a stall.
#[test]
fn each_state_takes_just_its_own_events() {
    type Row = (&'static str, fn() -> Flight, Result<(), NoSeat>, [bool; 5]);
    let table: [Row; 8] = [
        ("await head", awaits_head, Ok(()), [true, false, false, true, true]),
        ("vacant", vacant, Ok(()), [false; 5]),
        ("streaming", streaming, Ok(()), [false, true, true, true, false]),
        ("windowed", windowed, Err(NoSeat::Declined(Reason::TooLarge)), [false, true, true, true, false]),
        ("finished", finished, Err(NoSeat::Over), [false; 5]),
        ("broken", broken, Err(NoSeat::Over), [false; 5]),
        ("again", || ended(End::Again), Err(NoSeat::Over), [false; 5]),
        ("declined", || ended(End::Declined(Reason::NoRoom)), Err(NoSeat::Over), [false; 5]),
    ];
    for (name, make, joins, [starts, pushes, finishes, vacates, concludes]) in table {
        assert_eq!(make().join(at(1), STALL).map(|_| ()), joins, "{name}: join");
        assert_eq!(make().start(0, stream(None), at(1)).is_some(), starts, "{name}: start");
        let fragment = Fragment::new(Arc::from(&b"d"[..]));
        assert_eq!(make().push(0, Some(fragment), 1, 0, at(1)).is_some(), pushes, "{name}: push");
        assert_eq!(make().finish(0, Some(&whole(b"abc"))).is_some(), finishes, "{name}: finish");
        assert_eq!(make().vacate(0).is_some(), vacates, "{name}: vacate");
        assert_eq!(make().conclude(0, End::Again).is_some(), concludes, "{name}: conclude");
        // Of another term, nothing does anything.
        assert!(make().start(9, stream(None), at(1)).is_none(), "{name}");
        assert!(make().push(9, None, 1, 0, at(1)).is_none(), "{name}");
        assert!(make().finish(9, None).is_none() && make().vacate(9).is_none(), "{name}");
        assert!(make().conclude(9, End::Again).is_none() && !make().is_writer(9), "{name}");
    }
}

#[test]
fn what_a_follower_learns_of_the_head_depends_on_the_state() {
    let waker = Waker::noop();
    let learn = |end: fn(&mut Flight)| {
        let mut flight = flight();
        let seat = flight.join(at(0), STALL).unwrap();
        end(&mut flight);
        flight.poll_head(seat, waker)
    };
    assert_eq!(learn(|_| ()), Poll::Pending);
    let response = HeadStep::Response(Arc::from(&b"head"[..]), Some(7));
    assert_eq!(learn(|flight| drop(flight.start(0, stream(Some(7)), at(0)))), Poll::Ready(response));
    assert_eq!(learn(|flight| drop(flight.vacate(0))), Poll::Ready(HeadStep::Write(1)));
    assert_eq!(learn(|flight| drop(flight.conclude(0, End::Again))), Poll::Ready(HeadStep::Again));
    let declined = HeadStep::Declined(Reason::NoRoom);
    assert_eq!(learn(|flight| drop(flight.conclude(0, End::Declined(Reason::NoRoom)))), Poll::Ready(declined));
}

#[test]
fn a_stall_counts_from_the_last_sign_of_life() {
    let mut flight = flight();
    let seat = flight.join(at(0), STALL).unwrap();
    assert_eq!(flight.take_over(seat, at(9), STALL), None);
    flight.touch(0, at(5));
    assert_eq!(flight.take_over(seat, at(14), STALL), None);
    assert_eq!(flight.take_over(seat, at(15), STALL), Some(1));
    assert!(!flight.is_writer(0) && flight.is_writer(1));
    // A heir that does not come is replaced as well, counted from when it was first missed.
    let (heir, other) = (flight.join(at(20), STALL).unwrap(), flight.join(at(20), STALL).unwrap());
    flight.vacate(1).unwrap();
    assert_eq!(flight.take_over(other, at(30), STALL), None);
    assert_eq!(flight.take_over(other, at(40), STALL), Some(2));
    assert_eq!(flight.poll_head(heir, Waker::noop()), Poll::Pending);
}

#[test]
fn seats_are_bounded_and_used_again() {
    let mut flight = flight();
    let seats: Vec<_> = (0..3).map(|_| flight.join(at(0), STALL).unwrap()).collect();
    assert_eq!(flight.join(at(0), STALL), Err(NoSeat::Full));
    flight.leave(seats[1]);
    assert_eq!(flight.join(at(0), STALL), Ok(seats[1]));
    assert_eq!((flight.followers(), flight.followers.len()), (3, 3));
}

#[derive(Clone, Debug)]
enum Call {
    Push(usize),
    Window(usize),
    Read(usize),
    Gap(usize),
}

proptest! {
    /// Whatever is cut off behind them, followers read the writer's bytes in order, or learn that they lag.
    #[test]
    fn a_follower_reads_the_writers_bytes_or_is_cut(
        calls in prop::collection::vec(
            prop_oneof![
                (1_usize..50).prop_map(Call::Push),
                (0_usize..100).prop_map(Call::Window),
                (0_usize..3).prop_map(Call::Read),
                (1_usize..50).prop_map(Call::Gap),
            ],
            0..100,
        )
    ) {
        let mut flight = flight();
        let seats: Vec<u32> = (0..3).map(|_| flight.join(at(0), STALL).unwrap()).collect();
        flight.start(0, stream(None), at(0)).unwrap();
        let byte_at = |place: u64| u8::try_from(place % 251).unwrap();
        let (mut total, mut kept_from) = (0_u64, 0_u64);
        let mut places = [0_u64; 3];
        for call in calls {
            match call {
                Call::Push(len) => {
                    let bytes: Vec<u8> = (total..total + len as u64).map(byte_at).collect();
                    flight.push(0, Some(Fragment::new(Arc::from(bytes))), len as u64, 0, at(0)).unwrap();
                    total += len as u64;
                }
                Call::Window(window) => {
                    let stream = flight.stream(0).unwrap();
                    stream.not_kept = Some(Reason::TooLarge);
                    stream.drop_before(window as u64);
                    kept_from = kept_from.max(total.saturating_sub(window as u64));
                }
                Call::Gap(len) => {
                    let stream = flight.stream(0).unwrap();
                    stream.not_kept = Some(Reason::NoRoom);
                    flight.push(0, None, len as u64, 0, at(0)).unwrap();
                    total += len as u64;
                    kept_from = total;
                }
                Call::Read(who) => match flight.poll_body(seats[who], places[who], Waker::noop()) {
                    Poll::Ready(BodyStep::Fragment(fragment)) => {
                        for byte in fragment.iter() {
                            prop_assert_eq!(*byte, byte_at(places[who]));
                            places[who] += 1;
                        }
                    }
                    Poll::Ready(BodyStep::Lagged) => prop_assert!(places[who] < kept_from),
                    Poll::Pending => prop_assert_eq!(places[who], total),
                    Poll::Ready(BodyStep::End | BodyStep::Broken) => prop_assert!(false, "it is not over"),
                },
            }
        }
        flight.finish(0, None).unwrap();
        for (seat, place) in seats.iter().zip(places) {
            let mut place = place;
            loop {
                match flight.poll_body(*seat, place, Waker::noop()) {
                    Poll::Ready(BodyStep::Fragment(fragment)) => place += fragment.len() as u64,
                    Poll::Ready(BodyStep::End) => break prop_assert_eq!(place, total),
                    Poll::Ready(BodyStep::Lagged) => break prop_assert!(place < kept_from),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}

#[test]
fn bytes_that_come_one_by_one_cost_little_more_than_those_that_come_together() {
    let budget = crate::budget::Budget::new(1 << 20);
    let mut stream = Stream::new(
        Head { metadata: Arc::from(&b""[..]), tags: crate::Tags::NONE, expected: None },
        Arc::new(Charge::of_taken(&budget, 0)),
    );
    let mut copied = 0;
    for n in 0..100_000_u32 {
        let fragment = Fragment::new(Arc::from([n.to_le_bytes()[0]]));
        assert!(budget.take(fragment.heap_bytes()));
        stream.charge.absorb(fragment.heap_bytes());
        stream.held.push(stream.total, fragment);
        stream.total += 1;
        let before = stream.held.len();
        stream.join_short();
        copied += before - stream.held.len();
    }
    assert!(budget.used() < 110_000, "{}", budget.used());
    assert!(stream.held.len() < 50 && copied < 100_000, "{} fragments", stream.held.len());
    let bytes: Vec<u8> = stream.fragments().iter().flat_map(|fragment| fragment.to_vec()).collect();
    assert!((0..100_000_u32).all(|n| bytes[n as usize] == n.to_le_bytes()[0]));
    drop(stream);
    assert_eq!(budget.used(), 0);
}
