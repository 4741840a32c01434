"""URLs of the platform pages."""

from __future__ import annotations

from django.urls import path

from cloudsignal.console import home, operator, pages

app_name = "platform"
urlpatterns = [
    path("", pages.start, name="start"),
    path("o/<str:org_id>/", home.home, name="home"),
    path("o/<str:org_id>/pulse/", home.pulse, name="pulse"),
    path("help/", pages.help_page, name="help"),
    path("session/", pages.session, name="session"),
    path("theme/", pages.theme, name="theme"),
    path("cloudsignal-ca.pem", pages.certificate, name="ca"),
    path("operator/organizations/", operator.organizations, name="operator-organizations"),
    path("operator/mail/", operator.mail, name="operator-mail"),
    path("operator/domains/", operator.domains, name="operator-domains"),
    path("operator/domains/<str:org_id>/<str:sign_on_id>/", operator.approve, name="operator-approve"),
    path("operator/nodes/", operator.nodes, name="operator-nodes"),
    path("operator/organizations/<str:org_id>/suspend/", operator.suspend, name="operator-suspend"),
    path("operator/organizations/<str:org_id>/resume/", operator.resume, name="operator-resume"),
]
