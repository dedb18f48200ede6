#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use allocation_counter::measure;
use axum::extract::ConnectInfo;
use http::request::Parts;
use http::{HeaderValue, Request};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{ClientAddress, IntoAddress};
use crate::values::Kind;

const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// The head of a request with these lines of a field.
fn head(field: &'static str, lines: &[impl AsRef<[u8]>]) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    for line in lines {
        head.headers.append(field, HeaderValue::from_bytes(line.as_ref()).unwrap());
    }
    head
}

/// The id that is charged for a request with these lines of `X-Forwarded-For`.
fn by_x_forwarded_for(nth: usize, lines: &[impl AsRef<[u8]>]) -> String {
    let address = ClientAddress::of_peer(|_| PEER).x_forwarded_for(nth);
    id(&address, &head("x-forwarded-for", lines))
}

/// The id that is charged for a request with these lines of `Forwarded`.
fn by_forwarded(nth: usize, lines: &[impl AsRef<[u8]>]) -> String {
    let address = ClientAddress::of_peer(|_| PEER).forwarded(nth);
    id(&address, &head("forwarded", lines))
}

/// The id that is charged for a request from this peer.
fn by_peer(peer: impl IntoAddress + Copy + Send + Sync + 'static) -> String {
    id(&ClientAddress::of_peer(move |_| peer), &Request::new(()).into_parts().0)
}

fn id(address: &ClientAddress, head: &Parts) -> String {
    let principal = address.principal(head);
    assert_eq!(principal.kind(), Kind::ADDRESS);
    principal.id().to_string()
}

#[test]
fn a_peer_is_charged_whatever_type_its_address_has() {
    let v4 = Ipv4Addr::new(192, 0, 2, 7);
    assert_eq!(by_peer(v4), "192.0.2.7");
    assert_eq!(by_peer(IpAddr::from(v4)), "192.0.2.7");
    assert_eq!(by_peer(SocketAddrV4::new(v4, 4711)), "192.0.2.7");
    assert_eq!(by_peer(SocketAddr::from((v4, 4711))), "192.0.2.7");
    assert_eq!(by_peer(Some(SocketAddr::from((v4, 4711)))), "192.0.2.7");

    let v6: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
    assert_eq!(by_peer(v6), "2001:db8:1:2::/64");
    assert_eq!(by_peer(IpAddr::from(v6)), "2001:db8:1:2::/64");
    assert_eq!(by_peer(SocketAddrV6::new(v6, 4711, 1, 2)), "2001:db8:1:2::/64");
    assert_eq!(by_peer(Some(v6)), "2001:db8:1:2::/64");
}

#[test]
fn closures_need_no_types_and_see_the_extensions() {
    let peer = SocketAddr::from(([192, 0, 2, 7], 4711));
    let (mut head, ()) = Request::new(()).into_parts();
    head.extensions.insert(peer);
    head.extensions.insert(ConnectInfo(peer));

    let hyper = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied());
    assert_eq!(id(&hyper, &head), "192.0.2.7");

    let axum = ClientAddress::of_peer(|head| {
        head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    });
    assert_eq!(id(&axum, &head), "192.0.2.7");

    let early = ClientAddress::of_peer(|head| {
        let peer = head.extensions.get::<ConnectInfo<SocketAddr>>()?;
        Some(peer.ip())
    });
    assert_eq!(id(&early, &head), "192.0.2.7");
}

#[test]
fn requests_without_an_address_are_charged_together() {
    assert_eq!(by_peer(None::<IpAddr>), "unknown");
    let address = ClientAddress::of_peer(|_| None::<SocketAddr>).x_forwarded_for(1);
    assert_eq!(id(&address, &head("x-forwarded-for", &["unknown"])), "unknown");
    assert_eq!(id(&address, &head("x-forwarded-for", &["192.0.2.7"])), "192.0.2.7");
}

#[test]
fn the_peer_counts_where_no_field_is_read() {
    let address = ClientAddress::of_peer(|_| PEER);
    for field in ["x-forwarded-for", "forwarded"] {
        assert_eq!(id(&address, &head(field, &["for=192.0.2.7", "192.0.2.7"])), PEER.to_string());
    }
    // The field that was set last is read, and no other.
    let address = address.x_forwarded_for(1).forwarded(1);
    assert_eq!(id(&address, &head("x-forwarded-for", &["192.0.2.7"])), PEER.to_string());
    assert_eq!(id(&address, &head("forwarded", &["for=192.0.2.7"])), "192.0.2.7");
    let address = address.x_forwarded_for(1);
    assert_eq!(id(&address, &head("x-forwarded-for", &["192.0.2.7"])), "192.0.2.7");
    assert_eq!(id(&address, &head("forwarded", &["for=192.0.2.7"])), PEER.to_string());
}

#[test]
fn ipv4_in_ipv6_is_the_same_client_as_ipv4() {
    let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
    assert_eq!(by_peer(SocketAddr::from((mapped, 4711))), by_peer(Ipv4Addr::new(192, 0, 2, 7)));
    for spelling in ["::ffff:192.0.2.7", "::FFFF:c000:207", "[::ffff:192.0.2.7]:80"] {
        assert_eq!(by_x_forwarded_for(1, &[spelling]), "192.0.2.7", "{spelling}");
    }
    // Also where few bits of IPv6 addresses count.
    let address = ClientAddress::of_peer(move |_| mapped).ipv6_prefix(1);
    assert_eq!(id(&address, &head("x-forwarded-for", &[""; 0])), "192.0.2.7");
}

#[test]
fn ipv6_addresses_are_grouped_by_their_prefix() {
    let of = |bits, address: &str| {
        let peer: Ipv6Addr = address.parse().unwrap();
        let address = ClientAddress::of_peer(move |_| peer).ipv6_prefix(bits);
        id(&address, &Request::new(()).into_parts().0)
    };
    let ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for (bits, group) in [
        (0, "8000::/1"),
        (1, "8000::/1"),
        (15, "fffe::/15"),
        (16, "ffff::/16"),
        (17, "ffff:8000::/17"),
        (63, "ffff:ffff:ffff:fffe::/63"),
        (64, "ffff:ffff:ffff:ffff::/64"),
        (65, "ffff:ffff:ffff:ffff:8000::/65"),
        (127, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"),
        (128, ones),
        (129, ones),
        (255, ones),
    ] {
        assert_eq!(of(bits, ones), group);
    }
    // The last bit that counts divides, the first that does not count joins.
    assert_ne!(of(64, "2001:db8:0:1::"), of(64, "2001:db8::"));
    assert_eq!(of(64, "2001:db8::8000:0:0:0"), of(64, "2001:db8::"));
    // RFC 5952: no leading zeros, small letters, and the first of the longest runs of zeros.
    assert_eq!(of(128, "2001:0DB8:0:0:1:0:0:1"), "2001:db8::1:0:0:1");
    assert_eq!(of(64, "2001:db8:0:1::1"), "2001:db8:0:1::/64");
    assert_eq!(of(64, "::1"), "::/64");
}

#[test]
fn unless_set_64_bits_of_ipv6_addresses_count() {
    let one: Ipv6Addr = "2001:db8:1:2::1".parse().unwrap();
    let other: Ipv6Addr = "2001:db8:1:2:ffff:ffff:ffff:ffff".parse().unwrap();
    let beyond: Ipv6Addr = "2001:db8:1:3::1".parse().unwrap();
    assert_eq!(by_peer(one), by_peer(other));
    assert_ne!(by_peer(one), by_peer(beyond));
}

#[test]
fn addresses_are_read_in_every_usual_spelling() {
    for (text, group) in [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:80", "192.0.2.7"),
        ("192.0.2.7:65535", "192.0.2.7"),
        ("192.0.2.7:_hidden", "192.0.2.7"),
        (" \t192.0.2.7\t ", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:DB8::1", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
        ("[2001:db8::1]:_hidden", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("[fe80::1%25eth0]:443", "fe80::/64"),
        ("::1", "::/64"),
        ("2001:db8::192.0.2.7", "2001:db8::/64"),
    ] {
        assert_eq!(by_x_forwarded_for(1, &[text]), group, "{text}");
        assert_eq!(by_forwarded(1, &[format!("for=\"{}\"", text.trim())]), group, "{text}");
        assert_eq!(by_forwarded(1, &[format!("For = {text}")]), group, "{text}");
    }
}

#[test]
fn the_peer_counts_for_what_is_no_address() {
    for text in [
        "",
        " ",
        "unknown",
        "_hidden",
        "-",
        "localhost",
        "192.0.2",
        "192.0.2.07",
        "192.0.2.256",
        "192.0.2.7.8",
        "192.0.2.7 8",
        "192.0.2.7:",
        "192.0.2.7:+1",
        "192.0.2.7:http",
        "192.0.2.7:655360",
        "192.0.2.7%eth0",
        "192.0.2.7/32",
        "[192.0.2.7]:80",
        "[]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]443",
        "[2001:db8::1]:",
        "[2001:db8::1] :443",
        "[[2001:db8::1]]",
        "2001:db8::1::2",
        "2001:db8:1:2:3:4:5:6:443",
        "2001:db8::1/64",
        "for=192.0.2.7",
    ] {
        assert_eq!(by_x_forwarded_for(1, &[text]), PEER.to_string(), "{text}");
        assert_eq!(by_forwarded(1, &[format!("for=\"{text}\"")]), PEER.to_string(), "{text}");
    }
    // Quotes belong to `Forwarded` alone, and bytes beyond ASCII to no address.
    assert_eq!(by_x_forwarded_for(1, &["\"192.0.2.7\""]), PEER.to_string());
    for bytes in [&b"192.0.2.7\xff"[..], b"\xa0192.0.2.7", "192.0.2.７".as_bytes()] {
        assert_eq!(by_x_forwarded_for(1, &[bytes]), PEER.to_string());
        assert_eq!(by_forwarded(1, &[[b"for=", bytes].concat()]), PEER.to_string());
    }
}

#[test]
fn the_nth_address_from_the_right_counts() {
    let line = ["203.0.113.9, 192.0.2.3,192.0.2.2 , 192.0.2.1"];
    assert_eq!(by_x_forwarded_for(1, &line), "192.0.2.1");
    assert_eq!(by_x_forwarded_for(2, &line), "192.0.2.2");
    assert_eq!(by_x_forwarded_for(3, &line), "192.0.2.3");
    assert_eq!(by_x_forwarded_for(0, &line), "192.0.2.1");

    let line = ["for=203.0.113.9, for=192.0.2.3,for=192.0.2.2 , for=192.0.2.1"];
    assert_eq!(by_forwarded(1, &line), "192.0.2.1");
    assert_eq!(by_forwarded(2, &line), "192.0.2.2");
    assert_eq!(by_forwarded(3, &line), "192.0.2.3");
    assert_eq!(by_forwarded(0, &line), "192.0.2.1");
}

#[test]
fn the_peer_counts_if_there_are_fewer_addresses() {
    for nth in [3, 4, 1000, usize::MAX] {
        let lines = ["192.0.2.2, 192.0.2.1"];
        assert_eq!(by_x_forwarded_for(nth, &lines), PEER.to_string());
        assert_eq!(by_x_forwarded_for(nth, &[""; 0]), PEER.to_string());
        let lines = ["for=192.0.2.2, for=192.0.2.1"];
        assert_eq!(by_forwarded(nth, &lines), PEER.to_string());
        assert_eq!(by_forwarded(nth, &[""; 0]), PEER.to_string());
    }
}

#[test]
fn lines_are_one_list_in_their_order() {
    let lines = ["203.0.113.9", "192.0.2.4, 192.0.2.3", "", "192.0.2.2", "192.0.2.1"];
    for (nth, expected) in [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "192.0.2.3"), (4, "192.0.2.4")]
    {
        assert_eq!(by_x_forwarded_for(nth, &lines), expected);
        let lines = lines.map(|line| match line {
            "" => String::new(),
            line => format!("for={}", line.replace(", ", ", for=")),
        });
        assert_eq!(by_forwarded(nth, &lines), expected);
    }
}

#[test]
fn empty_members_are_passed_over_but_not_without_end() {
    assert_eq!(by_x_forwarded_for(2, &[",192.0.2.2,, ,", " ", ",192.0.2.1,\t,"]), "192.0.2.2");
    let lines = [",for=192.0.2.2,, ,", " ", ",for=192.0.2.1,\t,"];
    assert_eq!(by_forwarded(2, &lines), "192.0.2.2");

    for commas in [33, 1000, 64 << 10] {
        let commas = ",".repeat(commas);
        assert_eq!(by_x_forwarded_for(1, &[format!("192.0.2.1{commas}")]), PEER.to_string());
        assert_eq!(by_forwarded(1, &[format!("for=192.0.2.1{commas}")]), PEER.to_string());
        // A client's commas do not hide what a proxy appends.
        assert_eq!(by_x_forwarded_for(1, &[format!("{commas} 192.0.2.1")]), "192.0.2.1");
        assert_eq!(by_forwarded(1, &[format!("{commas} for=192.0.2.1")]), "192.0.2.1");
    }
}

#[test]
fn a_client_can_t_choose_its_address() {
    let many = (1..=100).map(|host| format!("203.0.113.{host}"));
    let many_elements: Vec<_> = many.clone().map(|address| format!("for={address}")).collect();
    let many: Vec<_> = many.collect();
    for spoofed in [
        "203.0.113.9",
        "192.0.2.7",
        "\"",
        "\\",
        "for=\"",
        "for=\"203.0.113.9",
        "for=203.0.113.9;host=\"",
        "for=203.0.113.9;host=\"\\\"",
        "for=203.0.113.9;host=\"\\",
        "for=203.0.113.9, \"",
        "for=203.0.113.9;",
        "for=",
        "=",
        ";",
        ",,,",
        "[",
        "(",
        "\u{e9}\u{1f980}",
        &"\"".repeat(64 << 10),
        &"\\".repeat(64 << 10),
        &"9".repeat(64 << 10),
        &";".repeat(64 << 10),
        &many.join(", "),
        &many_elements.join(", "),
    ] {
        // In the line to which the proxy appends, and in a line before it.
        let joined = [format!("{spoofed}, 192.0.2.2, 192.0.2.1")];
        let apart = [spoofed, "192.0.2.2", "192.0.2.1"];
        assert_eq!(by_x_forwarded_for(2, &joined), "192.0.2.2", "{spoofed:.80}");
        assert_eq!(by_x_forwarded_for(2, &apart), "192.0.2.2", "{spoofed:.80}");

        let outer = r#"for=192.0.2.2;host="a, for=203.0.113.9\"";proto=https"#;
        let inner = r#"by="[2001:db8::2]";FOR="192.0.2.1:80""#;
        let joined = [format!("{spoofed}, {outer}, {inner}")];
        for (nth, expected) in [(1, "192.0.2.1"), (2, "192.0.2.2")] {
            assert_eq!(by_forwarded(nth, &joined), expected, "{spoofed:.80}");
            assert_eq!(by_forwarded(nth, &[spoofed, outer, inner]), expected, "{spoofed:.80}");
        }
    }
}

#[test]
fn forwarded_is_read_by_its_grammar() {
    for element in [
        "for=192.0.2.7",
        "FOR=192.0.2.7",
        "for=\"192.0.2.7:80\"",
        r#"for="192.0.2.\7""#,
        "proto=https;for=192.0.2.7",
        "proto=https ; For = \"192.0.2.7\" ; by=_proxy",
        ";;for=192.0.2.7;;",
        r#"host="a;for=203.0.113.9";for=192.0.2.7"#,
        r#"host="\";for=203.0.113.9;x=\"";for=192.0.2.7"#,
        r#"for=192.0.2.7;host="\\""#,
        r#"for=192.0.2.7;host="""#,
    ] {
        assert_eq!(by_forwarded(1, &[element]), "192.0.2.7", "{element}");
    }
    for element in [
        // Nothing that says who the client is.
        "for=unknown",
        "for=_hidden",
        "for=\"_hidden:80\"",
        "for=",
        "for=\"\"",
        "by=192.0.2.7",
        "proto=https",
        "xfor=192.0.2.7",
        "host=\"for=192.0.2.7\"",
        "host=\";for=192.0.2.7;\"",
        // Malformed.
        "192.0.2.7",
        "for",
        "for=192.0.2.7;proto",
        "for=192.0.2.7;for=192.0.2.7",
        "for=\"192.0.2.7",
        "for=192.0.2.7\"",
        "for=\"192.0.2.7\"\"",
        "for=\"192.0.2.7\"x",
        "for=\"192.0.2.\"7\"\"",
        "for='192.0.2.7'",
        r#"for="192.0.2.7\""#,
        "\"for\"=192.0.2.7",
        "x\"y\"=1;for=192.0.2.7",
        "for=192.0.2.7;host=\"a\"b\"",
        "for=192.0.2.7;host=\"a\"\"b\"",
        r#"for=192.0.2.7;host="a\\"b""#,
    ] {
        assert_eq!(by_forwarded(1, &[element]), PEER.to_string(), "{element}");
    }
}

#[test]
fn a_malformed_element_of_a_proxy_does_not_let_a_client_choose() {
    // The first two hide that the second element is the outer proxy's.
    for inner in ["for=\"192.0.2.1", "for=192.0.2.1\"", "for=192.0.2.1;for=192.0.2.1", "192.0.2.1"]
    {
        let lines = ["for=203.0.113.9".to_owned(), format!("for=192.0.2.2, {inner}")];
        assert_eq!(by_forwarded(2, &lines), PEER.to_string(), "{inner}");
    }
    let lines = ["for=203.0.113.9, for=203.0.113.9;host=\"", "for=192.0.2.2, for=\"192.0.2.1"];
    assert_eq!(by_forwarded(2, &[lines.join(", ")]), PEER.to_string());
}

#[test]
fn an_id_of_up_to_36_bytes_needs_no_allocation() {
    for (field, line) in [
        ("x-forwarded-for", "192.0.2.7, 192.0.2.1"),
        ("x-forwarded-for", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535, 192.0.2.1"),
        ("forwarded", "for=\"[2001:db8::1]:4711\";host=\"a\", for=192.0.2.1"),
        ("forwarded", "for=unknown, for=192.0.2.1"),
    ] {
        let address = ClientAddress::of_peer(|_| PEER);
        let address = match field {
            "forwarded" => address.forwarded(2),
            _ => address.x_forwarded_for(2),
        };
        let head = head(field, &[line]);
        let allocations = measure(|| drop(address.principal(&head)));
        assert_eq!(allocations.count_total, 0, "{line}");
    }
}

/// The bytes that a line of a header can have, those that have a meaning here more often.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => prop::sample::select(&b"\"\\,;=[]:. \tfor19"[..]),
        1 => prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8],
    ];
    vec(byte, 0..60)
}

/// An address, and how a proxy writes it.
fn addresses() -> impl Strategy<Value = (IpAddr, String)> {
    (prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)])
        .prop_flat_map(|address| {
            let port =
                any::<u16>().prop_map(move |port| SocketAddr::new(address, port).to_string());
            (Just(address), prop_oneof![Just(address.to_string()), port])
        })
}

/// A quoted string of any text.
fn quoted() -> impl Strategy<Value = String> {
    "[ -~]{0,20}"
        .prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// An element of `Forwarded`.
fn elements() -> impl Strategy<Value = (IpAddr, String)> {
    (addresses(), quoted(), 0..4_u8).prop_map(|((address, text), host, form)| {
        let element = match form {
            0 => format!("for=\"{text}\""),
            1 => format!("For=\"{text}\";host={host};proto=https"),
            2 => format!("by=_proxy; host={host} ;for=\"{text}\""),
            _ => format!("host={host};FOR=\"{text}\";x={host}"),
        };
        (address, element)
    })
}

/// The lines of a field with what clients wrote before what proxies appended, each in the same line
/// or in a new one.
fn field(spoofed: Vec<Vec<u8>>, appended: &[(IpAddr, String)], new_line: &[bool]) -> Vec<Vec<u8>> {
    let mut lines = spoofed;
    for ((_, member), new_line) in appended.iter().zip(new_line) {
        match lines.last_mut() {
            Some(last) if !new_line => last.extend([b", ", member.as_bytes()].concat()),
            _ => lines.push(member.clone().into_bytes()),
        }
    }
    lines
}

/// The id of an address of which all bits count.
fn whole(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

proptest! {
    #[test]
    fn whatever_clients_write_the_nth_address_from_the_right_is_found(
        spoofed in vec(lines(), 0..4),
        appended in vec(addresses(), 1..5),
        new_line: [bool; 4],
        nth in 1..5_usize,
    ) {
        let nth = nth.min(appended.len());
        let lines = field(spoofed, &appended, &new_line);
        let address = ClientAddress::of_peer(|_| PEER).ipv6_prefix(128).x_forwarded_for(nth);
        let found = id(&address, &head("x-forwarded-for", &lines));
        prop_assert_eq!(found, whole(appended[appended.len() - nth].0));
    }

    #[test]
    fn whatever_clients_write_the_nth_element_from_the_right_is_found(
        spoofed in vec(lines(), 0..4),
        appended in vec(elements(), 1..5),
        new_line: [bool; 4],
        nth in 1..5_usize,
    ) {
        let nth = nth.min(appended.len());
        let lines = field(spoofed, &appended, &new_line);
        let address = ClientAddress::of_peer(|_| PEER).ipv6_prefix(128).forwarded(nth);
        let found = id(&address, &head("forwarded", &lines));
        prop_assert_eq!(found, whole(appended[appended.len() - nth].0));
    }

    #[test]
    fn any_field_is_read_without_a_panic(lines in vec(lines(), 0..4), nth: u8, bits: u8) {
        let address = ClientAddress::of_peer(|_| PEER).ipv6_prefix(bits);
        let forwarded = address.clone().forwarded(nth.into());
        prop_assert_ne!(id(&forwarded, &head("forwarded", &lines)), "unknown");
        let x_forwarded_for = address.x_forwarded_for(nth.into());
        prop_assert_ne!(id(&x_forwarded_for, &head("x-forwarded-for", &lines)), "unknown");
    }
}
