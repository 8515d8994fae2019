//! Published ports.
use super::{Net, answered, ask_from_host, free_port, unanswered};
use runtime_tests::image::Image;
use serde_json::json;
use std::net::{TcpListener, UdpSocket};

#[test]
fn tcp_and_udp_ports_are_reached_from_the_host_by_any_of_its_addresses() {
    let net = Net::new();
    for protocol in ["tcp", "udp"] {
        let port = free_port();
        let publish = format!("{port}:5353/{protocol}");
        net.server(protocol, protocol, "5353", &["-p", &publish]);
        for address in ["127.0.0.1", &net.gateway()] {
            answered(ask_from_host(protocol, &format!("{address}:{port}")), "hello");
        }
        let ports = &net.world.inspect(protocol)["NetworkSettings"]["Ports"];
        assert_eq!(ports[format!("5353/{protocol}")][0]["HostPort"], port.to_string());
        let ps = net.world.run(&["ps"]).ok().stdout;
        assert!(ps.contains(&format!("0.0.0.0:{port}->5353/{protocol}")), "{ps}");
        net.world.run(&["delete", "--force", protocol]).ok();
        unanswered(ask_from_host(protocol, &format!("127.0.0.1:{port}")));
    }
}

#[test]
fn a_container_reaches_its_own_and_its_neighbours_published_port() {
    let net = Net::new();
    for protocol in ["tcp", "udp"] {
        let port = free_port();
        net.server(protocol, protocol, "80", &["-p", &format!("{port}:80/{protocol}")]);
        let to = format!("{}:{port}", net.gateway());
        answered(net.world.run(&["exec", protocol, "/probe", "ask", protocol, &to, "myself"]), "myself");
        answered(net.ask(protocol, &to), "hello");
    }
}

#[test]
fn a_port_of_one_address_is_of_that_alone() {
    let net = Net::new();
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    net.server("server", "tcp", "80", &["-p", &publish]);
    answered(ask_from_host("tcp", &format!("127.0.0.1:{port}")), "hello");
    unanswered(ask_from_host("tcp", &format!("{}:{port}", net.gateway())));
    unanswered(net.ask("tcp", &format!("{}:{port}", net.gateway())));
}

#[test]
fn without_a_number_a_free_port_is_taken_also_for_all_that_an_image_exposes() {
    let net = Net::new();
    let mut image = Image::busybox();
    image.config["ExposedPorts"] = json!({"80/tcp": {}, "53/udp": {}});
    net.world.load(&image, "localhost/exposes");
    let words = [
        vec!["run", "-d", "--name", "server"],
        net.flags(&["-P", "-p", "81"]),
        vec!["localhost/exposes", "/probe", "echo", "tcp", "80"],
    ];
    net.world.run(&words.concat()).ok();
    net.world.await_log("server", "ready");
    let ports = net.world.inspect("server")["NetworkSettings"]["Ports"].clone();
    assert_eq!(ports.as_object().unwrap().len(), 3, "{ports}");
    let port = ports["80/tcp"][0]["HostPort"].as_str().unwrap();
    answered(ask_from_host("tcp", &format!("127.0.0.1:{port}")), "hello");
}

#[test]
fn a_port_that_is_taken_names_who_has_it_and_leaves_nothing() {
    let net = Net::new();
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
    for (port, protocol) in
        [(tcp.local_addr().unwrap().port(), "tcp"), (udp.local_addr().unwrap().port(), "udp")]
    {
        let publish = format!("{port}:80/{protocol}");
        let text = format!("port {port}/{protocol} of the host is taken by a process of the host");
        net.world.once(&net.flags(&["-p", &publish]), &["true"]).exits(125).says(&text);
        assert_eq!(net.attached(), [""; 0]);
    }
    let port = free_port();
    let publish = format!("{port}:80");
    let id = net.background(&["-p", &publish], &["sleep", "1000"]);
    let text = format!("is taken by container {}", &id[..12]);
    net.world.once(&net.flags(&["-p", &publish]), &["true"]).exits(125).says(&text);
    net.world.once(&net.flags(&["-p", &publish, "-p", &publish]), &["true"]).exits(125);
    let other = format!("{port}:80/udp");
    net.world.once(&net.flags(&["-p", &other]), &["true"]).ok();
}
