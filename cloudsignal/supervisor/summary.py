"""The summary printed after the start: addresses and next commands."""

from __future__ import annotations

from cloudsignal.supervisor.assembly import System


def summary(system: System, *, seconds: float) -> str:
    """A few lines with the addresses."""
    urls = system.urls
    rows = [("dashboard", urls.get("web", "")), ("mqtts", urls.get("mqtts", "")), ("wss", urls.get("wss", ""))]
    rows.append(("CA file", str(system.ca) if system.ca else ""))
    rows.append(("logs", str(system.layout.logs)))
    lines = ["", f"Everything runs ({seconds:.1f} s)."]
    lines += [f"  {name:<10} {value}" for name, value in rows if value]
    if system.demo:
        lines.append(demo_text(system))
    lines += ["Ctrl-C stops it.", ""]
    return "\n".join(lines)


def demo_text(system: System) -> str:
    """The text of the demo's guide (sign-ins, commands to try)."""
    try:
        return (system.layout.root / "demo" / "guide.txt").read_text()
    except OSError:
        return ""
