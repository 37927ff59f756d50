use crate::{
    Error,
    live::{Manifest, parse_manifest},
};
use std::time::Duration;

#[test]
fn what_a_live_manifest_says() {
    // As ffmpeg writes it.
    let text = r#"<?xml version="1.0" encoding="utf-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011" type="dynamic"
  minimumUpdatePeriod="PT2S" availabilityStartTime="2026-11-25T01:00:00.123Z" publishTime="2026-11-25T01:00:20Z"
  timeShiftBufferDepth="PT1M10.5S" maxSegmentDuration="PT2.0S" minBufferTime="PT4.0S">
 <Period id="0" start="PT0.0S">
  <AdaptationSet id="0" contentType="video">
   <Representation id="0" mimeType="video/mp4" bandwidth="1000000">
    <SegmentTemplate timescale="15360" initialization="init-stream$RepresentationID$.m4s" media="chunk-stream$RepresentationID$-$Number%05d$.m4s">
     <SegmentTimeline><S t="0" d="30720" r="3"/></SegmentTimeline>
    </SegmentTemplate>
   </Representation>
   <Representation id="1" bandwidth="500000"><SegmentTemplate initialization="init-stream$RepresentationID$.m4s"/></Representation>
  </AdaptationSet>
 </Period>
</MPD>"#;
    let expected = Manifest {
        dynamic: true,
        minimum_update_period: Some(Duration::from_secs(2)),
        time_shift_buffer: Some(Duration::from_millis(70_500)),
        max_segment_duration: Some(Duration::from_secs(2)),
        availability_start: Some("2026-11-25T01:00:00.123Z".into()),
        initializations: vec!["init-stream0.m4s".into(), "init-stream1.m4s".into()],
    };
    assert_eq!(parse_manifest(text.as_bytes()), Ok(expected));
    assert_eq!(parse_manifest(b"<MPD type='static'/>"), Ok(Manifest::default()));
}

#[test]
fn where_initialization_segments_are() {
    let one = "<Representation id='r' bandwidth='7'/>";
    for (body, expected) in [
        (format!("<SegmentTemplate initialization='i'/>{one}"), "i"),
        (format!("<SegmentTemplate initialization='$RepresentationID$/$Bandwidth$.mp4'/>{one}"), "r/7.mp4"),
        (format!("<SegmentTemplate initialization='$Bandwidth%05d$$$x'/>{one}"), "00007$x"),
        (format!("<SegmentTemplate initialization='$Bandwidth%099999999999d$'/>{one}"), "00000000000000000000000000000007"),
        (format!("<SegmentTemplate initialization='$Number$-$'/>{one}"), "$Number$-$"),
        (format!("<SegmentTemplate initialization='a&amp;b'/>{one}"), "a&b"),
        (format!("<SegmentTemplate><Initialization sourceURL='s'/></SegmentTemplate>{one}"), "s"),
        (format!("<BaseURL>b/</BaseURL><SegmentTemplate initialization='i'/>{one}"), "b/i"),
        (format!("<BaseURL>b/c?x=/</BaseURL><SegmentTemplate initialization='i'/>{one}"), "b/i"),
        (format!("<BaseURL>a&amp;b/</BaseURL><SegmentTemplate initialization='i'/>{one}"), "a&b/i"),
        (format!("<BaseURL>b/</BaseURL><BaseURL>c/</BaseURL><SegmentTemplate initialization='i'/>{one}"), "b/i"),
        (format!("<BaseURL>https://h/b/</BaseURL><SegmentTemplate initialization='i'/>{one}"), "https://h/b/i"),
        (format!("<BaseURL>b/</BaseURL><SegmentTemplate initialization='/i'/>{one}"), "/i"),
        (
            "<BaseURL>b/</BaseURL><Representation id='r'><BaseURL>c/</BaseURL><SegmentList><Initialization sourceURL='i'/></SegmentList></Representation>".into(),
            "b/c/i",
        ),
    ] {
        let text = format!("<MPD><Period><AdaptationSet>{body}</AdaptationSet></Period></MPD>");
        let read = parse_manifest(text.as_bytes()).expect(&text);
        assert_eq!(read.initializations, [expected], "{text}");
    }
    let twice = "<MPD><Period><SegmentTemplate initialization='i'/><AdaptationSet><Representation/><Representation/></AdaptationSet></Period></MPD>";
    assert_eq!(parse_manifest(twice.as_bytes()).expect(twice).initializations, ["i"]);
}

#[test]
fn durations() {
    for (text, expected) in [
        ("PT2S", Some(2.0)),
        ("PT0S", Some(0.0)),
        ("PT1H1M1.5S", Some(3661.5)),
        ("P1D", Some(86_400.0)),
        ("P1DT1S", Some(86_401.0)),
        (" PT1M ", Some(60.0)),
        ("P0Y0M0DT1H2M3.5S", Some(3723.5)),
        ("P0Y0M1D", Some(86_400.0)),
        ("P0M", Some(0.0)),
        ("P", None),
        ("PT", None),
        ("P1Y", None),
        ("P0Y1MT1S", None),
        ("P0D0Y", None),
        ("PT-1S", None),
        ("-PT1S", None),
        ("PT1S1M", None),
        ("PTS", None),
        ("PT1.S.S", None),
        ("PT99999999999999S", None),
        ("2", None),
        ("", None),
    ] {
        let read = parse_manifest(format!("<MPD minimumUpdatePeriod='{text}'/>").as_bytes());
        let read = read.map(|manifest| manifest.minimum_update_period);
        let expected = match expected {
            Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
            None => Err(Error::Duration("MPD@minimumUpdatePeriod")),
        };
        assert_eq!(read, expected, "{text}");
    }
}

#[test]
fn what_is_no_manifest_is_refused() {
    let many: Vec<_> = (0..1001)
        .map(|i| format!("<Representation id='{i}'><SegmentTemplate initialization='{i}'/></Representation>"))
        .collect();
    let many = many.concat();
    for (text, expected) in [
        (String::new(), Error::Xml),
        ("<html/>".into(), Error::Xml),
        ("<MPD>".into(), Error::Xml),
        ("</MPD>".into(), Error::Xml),
        ("<MPD/><MPD/>".into(), Error::Xml),
        ("<MPD type='a' <x/>".into(), Error::Xml),
        ("<MPD type='&x;'/>".into(), Error::Xml),
        ("<!DOCTYPE MPD [<!ENTITY a 'b'>]><MPD/>".into(), Error::Doctype),
        (format!("<MPD>{}", "<a>".repeat(100)), Error::TooDeep),
        (format!("<MPD><Period>{many}</Period></MPD>"), Error::TooLong),
        (
            format!("<MPD><BaseURL>{}</BaseURL></MPD>", "a".repeat(5000)),
            Error::LongUrl,
        ),
        (
            format!(
                "<MPD><Period><Representation id='{}'><SegmentTemplate initialization='{}'/></Representation></Period></MPD>",
                "a".repeat(100),
                "$RepresentationID$".repeat(50)
            ),
            Error::LongUrl,
        ),
    ] {
        assert_eq!(parse_manifest(text.as_bytes()), Err(expected), "{text}");
    }
    assert_eq!(parse_manifest(b"\xff"), Err(Error::Utf8));
}
