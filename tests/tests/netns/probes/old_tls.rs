//! Certificates and versions of old servers, made by OpenSSL since the libraries of these tests cannot make them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_tests::{lane::Lane, netns::Netns, nginx, scratch::Scratch};
use lb_userspace::health::{TlsChecker, settings::TlsCheck};

use super::{Server, check, wait_for};

#[test]
fn old_tls_servers_are_accepted_unverified_or_refused_with_a_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("probes")?;
    let scratch = Scratch::new()?;
    let mut servers = String::new();
    let mut serve = |port: u16, name: &str, certificate: &str, key: &str, more: &str| -> Result<String> {
        let certificate = scratch
            .write(&format!("{name}.pem"), certificate)?
            .display()
            .to_string();
        let key = scratch.write(&format!("{name}.key"), key)?;
        servers += &format!(
            "server {{ listen {port} ssl; ssl_certificate {certificate}; ssl_certificate_key {}; {more} }}\n",
            key.display()
        );
        Ok(certificate)
    };
    let any = "ssl_ciphers ALL:@SECLEVEL=0;";
    serve(
        1,
        "weak",
        WEAK,
        WEAK_KEY,
        &format!("{any} ssl_protocols TLSv1.3;"),
    )?;
    serve(
        2,
        "weak12",
        WEAK,
        WEAK_KEY,
        &format!("{any} ssl_protocols TLSv1.2;"),
    )?;
    serve(3, "p521", P521, P521_KEY, "ssl_protocols TLSv1.3;")?;
    let own = serve(4, "first", FIRST, FIRST_KEY, "")?;
    serve(
        5,
        "old",
        FIRST,
        FIRST_KEY,
        &format!("{any} ssl_protocols TLSv1 TLSv1.1;"),
    )?;
    let rsa = "ssl_ciphers AES128-GCM-SHA256:AES128-SHA; ssl_protocols TLSv1.2;";
    serve(6, "exchange", FIRST, FIRST_KEY, rsa)?;
    nginx::configure(&scratch, &servers)?;
    let _nginx = Server::start(&mut nginx::command(&ns, &scratch))?;

    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let unverified = TlsCheck {
        verify: false,
        ..TlsCheck::default()
    };
    let pinned = TlsCheck {
        server_name: Some("a.example".to_owned()),
        ca_file: Some(own),
        ..TlsCheck::default()
    };
    let of = |file: &str| TlsCheck {
        ca_file: Some(scratch.join(file).display().to_string()),
        ..pinned.clone()
    };
    wait_for(&ns, &TlsChecker::new(&unverified)?, at(4))?;
    for (port, settings, expected) in [
        (1, &unverified, ""),
        (2, &unverified, ""),
        (3, &unverified, ""),
        (4, &unverified, ""),
        (4, &pinned, ""),
        (1, &of("weak.pem"), "has an RSA key of 1024 bits"),
        (4, &of("weak.pem"), "is not of X.509 version 3"),
        (5, &unverified, "it speaks neither TLS 1.2 nor TLS 1.3"),
        (6, &unverified, "RSA key exchange and CBC are not supported"),
    ] {
        let found = match check(&ns, &TlsChecker::new(settings)?, at(port))? {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        let right = if expected.is_empty() {
            found.is_empty()
        } else {
            found.contains(expected)
        };
        ensure!(right, "port {port}: \"{found}\", expected \"{expected}\"");
    }
    Ok(())
}

/// Of an RSA key with 1024 bits.
const WEAK: &str = "\
-----BEGIN CERTIFICATE-----
MIICHDCCAYWgAwIBAgIUPAqKC/jb/lJfaPyadB9PDlXDmvMwDQYJKoZIhvcNAQEL
BQAwFDESMBAGA1UEAwwJYS5leGFtcGxlMCAXDTI2MTEyOTE0MjczNFoYDzIxMjYx
MTA1MTQyNzM0WjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwgZ8wDQYJKoZIhvcNAQEB
BQADgY0AMIGJAoGBAMYRiMzzgTpDRbkeUZXHGXcUtXbiOm0HSqM+9qmBjDayHj+/
FPv8+Yq756RMVGmGLj1Qva4ZIcEs5GR99nBTGlFoPYVmt4w8B7KKAZcmu9Il+UXX
AaQK8MQEQG3TMyaI0tf39VPfwlbJIUS5V7kgYQBZ3Ef/h8GC4nCxWahKlD+pAgMB
AAGjaTBnMB0GA1UdDgQWBBRM9aebQLSPDFrmoqbRc6jr8Q3P6TAfBgNVHSMEGDAW
gBRM9aebQLSPDFrmoqbRc6jr8Q3P6TAPBgNVHRMBAf8EBTADAQH/MBQGA1UdEQQN
MAuCCWEuZXhhbXBsZTANBgkqhkiG9w0BAQsFAAOBgQA3pe3W3e2J6QrvWH0vektb
VHKJGzFOsCT2Pi2LIXOBKZQvmzpl4uY7eMDdbbo+0b3MRkhqvfI1Si4PGMafpdWY
RyjBMo4aMELzYThfld44FHGgsDBRYK+KL8amCnzEW2dbsv79bGRDM7LoFs+dzyVc
BjWs4qkgzF3lLA/+5mbxXw==
-----END CERTIFICATE-----
";
/// Its key, for tests only.
const WEAK_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIICdQIBADANBgkqhkiG9w0BAQEFAASCAl8wggJbAgEAAoGBAMYRiMzzgTpDRbke
UZXHGXcUtXbiOm0HSqM+9qmBjDayHj+/FPv8+Yq756RMVGmGLj1Qva4ZIcEs5GR9
9nBTGlFoPYVmt4w8B7KKAZcmu9Il+UXXAaQK8MQEQG3TMyaI0tf39VPfwlbJIUS5
V7kgYQBZ3Ef/h8GC4nCxWahKlD+pAgMBAAECgYA1HByHgD/FhKZcdgHAXKu6X4Yt
A4pRE+Ryk36GgyM6w1YTF8SjsPikt6/sQT9dMEqTzGOgHEMNzmDLhW8gPVhPxPP8
hU8Iu8WiHHZkSh2AlswVXsLiaj9hor4FWDZdLtSH30KqK4iIFqUj/toaFlNzYu9q
tOAfR/+A+LSqfsF0lQJBAOwEtY3k6Fu7e9yXIU3yh91K9v2Wx3PhHzy4r1c9ehGY
pYQdJY6F36RiaLPaZPx1TGMdNPhVhq5qFG0OWsaLUDsCQQDW1lOffYyKlwkX5jA0
kQTg55YPGJhAJw5KzkP67ByIc12PytDkILCrUc9kKg9cBy6axKT6ig6Kxlehk7sh
4LVrAkAmUzVwDyW0D6OzVE8yKxno0018LEnDBWFfKNZAIll6FgF6jIkWtaJ1PQ2n
duVDIYD/7zQ0xx6Rn+QlOVmAOAsVAkB8AejxBeJK2RWZovguT4sWWvcGLbcsSJ76
VQduXj22EYlvB63+EFSJ/0YL1i9ZepfPJDTqnSf5uLU6gfChhHiTAkB5ShprsD57
0FIZ9/5RQz8VB5pmav0q1bcF0HIzq9aoecRe0xEbaAAqA5YyTWfBTJ/fC1MTlVxt
kAeJGNHc8DT5
-----END PRIVATE KEY-----
";
/// Of a key on the curve P-521.
const P521: &str = "\
-----BEGIN CERTIFICATE-----
MIICHDCCAX6gAwIBAgIUTYOm0t3Itbyf1jnmp3pIDhME4NYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJYS5leGFtcGxlMCAXDTI2MTEyOTE0MjczNFoYDzIxMjYxMTA1
MTQyNzM0WjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwgZswEAYHKoZIzj0CAQYFK4EE
ACMDgYYABAClWbnwt1BCnWpCDTy5wqAWKyen/E4ttuVW9Mh8zibKpSywSbOkeCqJ
vqjKRjUjEDvPXQiylN991atg5/S+naZ10gEPOEhpojRkRrhmu2S4T78kDT5VvgMr
zPVx2glam+B+ThfFaJlbzDKUM4eppVviS/piNyVuZZZWeKJrO11ncUb30aNpMGcw
HQYDVR0OBBYEFLXcauvqwYRvqKK2iR9M2ImqrcG9MB8GA1UdIwQYMBaAFLXcauvq
wYRvqKK2iR9M2ImqrcG9MA8GA1UdEwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJYS5l
eGFtcGxlMAoGCCqGSM49BAMCA4GLADCBhwJBbhwGJihWQMRmKc+0xq/LFJVlJdsR
fTQ8RheDUNxz9QyWBTvQjmInDGwR5gZGcDhCyGeqD6nTQq8hJUtsxhfwSgoCQgHN
Sj2IuhiZYVTeWvTTfjf7WvrLvyoBG+YVdMi9gEKx88sdmI8pOzRkY3GS8ePRgBkX
y/Gh8/D8NGg5o759+BN6Bw==
-----END CERTIFICATE-----
";
/// Its key.
const P521_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIApZnbfRfUqRENwncd
Wr+WsebociXFBW/G4OrUO5YGAZQ6cQQbKO1Ic9FyWx/7vw14FyOjcn7kP//ffTA+
hvPHl0mhgYkDgYYABAClWbnwt1BCnWpCDTy5wqAWKyen/E4ttuVW9Mh8zibKpSyw
SbOkeCqJvqjKRjUjEDvPXQiylN991atg5/S+naZ10gEPOEhpojRkRrhmu2S4T78k
DT5VvgMrzPVx2glam+B+ThfFaJlbzDKUM4eppVviS/piNyVuZZZWeKJrO11ncUb3
0Q==
-----END PRIVATE KEY-----
";
/// Of version 1, as `openssl x509 -req` makes it without extensions.
const FIRST: &str = "\
-----BEGIN CERTIFICATE-----
MIICsTCCAZkCFEJUr7qtXsRiVax9EQH1Mgao1JhLMA0GCSqGSIb3DQEBCwUAMBQx
EjAQBgNVBAMMCWEuZXhhbXBsZTAgFw0yNjExMjkxNDI3MzdaGA8yMTI2MTEwNTE0
MjczN1owFDESMBAGA1UEAwwJYS5leGFtcGxlMIIBIjANBgkqhkiG9w0BAQEFAAOC
AQ8AMIIBCgKCAQEApjXoIv7AjxBbzMilnmP3tN9PEWJNCmx7nmvc2LKSZfUSkUeM
cedmsE5Z1kBpgwlms1vpO+dZ3qQaBIVKNRqdjobOgFkmP3SnhQ2xUGG073bC9MSB
ljKmB3G8oEbwV1VhoJa72jr8UDaIq5Hqt6E+IkLwsPzjiETRKWrbFno7qBP5tu1Q
OdvOSJHgtO7AnJP2gYbQtWyzqvQCOyHnrIAip6+pBh1L5eDRzh+s708t04vtpIk0
GB1vOD/14hRHbQEHY80oo9/l7DN3pZT6ahB5vZXp25ByfSWb1SNhgh/NhZJQ6jxF
5tO+fja4RbD203RqC/FapSMMu6s+3lETkytk3wIDAQABMA0GCSqGSIb3DQEBCwUA
A4IBAQBkvtz27zLMq6cyAxkVsM1B0C9lxSjnAhGgI3QUlKG+6FolL9+ePZm6idBI
x10kXjjYkztTnpIg2dHPGXG6ZWV+NkQFQJJr8pNnRZap1wPUbZ/fPN9Q1WlKcMQo
ej/d3dQQqgJIt0TEb2H8RtNGnehluu1B4aH+/HhqBjNCENfmJkfC9WOxmPbQULlC
LfYXU23NCkY5TIHWcq4S6NAk+tf6aT+zrEOeQJZrZmjVQ0gccF8svNIfNjoWkvQ0
ZhZ3q6XNDRF/qu/f+QTPRlA1qd2VGOVl9KY4CdTQBKaglzk/kD2KYvEaTYHd754Z
GW6Tjpb8Rmc7k//ESXLma9udONCN
-----END CERTIFICATE-----
";
/// Its key.
const FIRST_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCmNegi/sCPEFvM
yKWeY/e0308RYk0KbHuea9zYspJl9RKRR4xx52awTlnWQGmDCWazW+k751nepBoE
hUo1Gp2Ohs6AWSY/dKeFDbFQYbTvdsL0xIGWMqYHcbygRvBXVWGglrvaOvxQNoir
keq3oT4iQvCw/OOIRNEpatsWejuoE/m27VA5285IkeC07sCck/aBhtC1bLOq9AI7
IeesgCKnr6kGHUvl4NHOH6zvTy3Ti+2kiTQYHW84P/XiFEdtAQdjzSij3+XsM3el
lPpqEHm9lenbkHJ9JZvVI2GCH82FklDqPEXm075+NrhFsPbTdGoL8VqlIwy7qz7e
UROTK2TfAgMBAAECggEAJlcKAMSOC5JE8sSX+6Tot1bJqONpjQ2AKIeODoiGn7E8
Aroj6gRsWiAAthzumdT51UbO0swnnWVyQPe0KfLFRGLRUKb/3SReHiGN9NJNB+33
w7lugQSW6uGwFrK2bxbZac9LbugrWp9xwE3s/EXcDNAvMExtefoR24F0H0e76iWt
wX5clM9Jlz74hUQzXYvw+D6CqNnREkk4GOWy4aJuPtQ62eIndMt86KqJRiPBCv9S
aQkRgXZ+2HeclJ2/LQ1lmFhiH1hU35ZXiwLp6Ed7HfVXn8uw0ycYKx5PpW4hIX3G
/io5XxGKNlq8q3N5fx0C0WrbQ1s8a03Ut3ln7uMtpQKBgQDlXoSpDkQwE4Ge4E1b
VO5xzaf3gVbsE3b/0XT+bBAUQQWfijAJE+RlHrWOEeMQv7L3Fk5GVeV2ZMJZvmzg
0rsKemDtpHouFUnSlLfListcMJHm6rrgqdpWv1xBmsnIwE8ruGXShjSvPJVDWxq5
orieJYziKXmMxGiq2xgEJUKlvQKBgQC5giQEptCaRyxjdSCX3+DQA3Xxn+mvTn9u
1t6S6pxf5mozgyyqKTSkXJUtIyf3z1oJJswt+NBbIPS/ljcoPPC5AJbAmD6a9bzG
oa83kq3npqEKCtBtmQItXYk8GmmtkRk+CbEizxMwNjWlWC5vNBhIZEBoFlq32PGm
cKpVXs1YywKBgAL9JlFlpDHULz44wglMpAbLnUK2ZsGQx14yBopCMjtxVXdsv49+
uN0wd0EwrnrLZLOfkMmN2P2f9oBg4N5VIKbUTWsLV6Q+FsYtte9rEZdT8rLFoEXJ
MNUsjTE1qSd6ig2Ry5HgudMGwRMtnr2Ih0tYReu0iqbw8EQ5sqhrK+EpAoGBAIYV
xQb/tEPvMexpmrdsAMkZ10Rgu74U1RM+h/5VSdYfa5/0LnKH+h7bNJA9mwQJgiCf
RHHuKFvWBFH+t7uD4NM30789y/KhsGM6NrXKdZy82iWyD1lIgURdGXax+LSV7lLj
Gn/4gPwWEsyCYn3Kf8rDe7JAhi3gxznwsY2nSnHlAoGBAIpA36uDohUxASh9pXlx
zRz9ESrsso+ZBjqTNw8jF+P5S5dZD+uQCc1JEuViu9ksGNe5Sdft2xSUMiUIL0la
8oNWF6ql9z0kHLopD0rRbRU1r/a+DqZKqE3K/QX+Dsg3rOZuBEeQt+hWlSyiOnJ0
Itt56XavY0RuGKN3UNrIrGxv
-----END PRIVATE KEY-----
";
