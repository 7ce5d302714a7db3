"""Metrics in the text format of Prometheus."""

from prometheus_client.parser import text_string_to_metric_families

from iwcodec.server.prometheus import Metrics


def test_the_text_format_parses_and_every_metric_is_documented() -> None:
    metrics = Metrics()
    metrics.joins.labels("joined").inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.page().decode())}
    assert families["iwcodec_joins"].samples[0].value == 1
    assert all(family.documentation for family in families.values())
    assert {"iwcodec_connections", "iwcodec_rooms", "iwcodec_participants", "iwcodec_dropped"} <= set(families)


def test_two_servers_in_one_process_count_separately() -> None:
    one, two = Metrics(), Metrics()
    one.lost.inc()
    assert b"iwcodec_lost_total 1.0" in one.page()
    assert b"iwcodec_lost_total 0.0" in two.page()
