"""URLs of the access control pages."""

from __future__ import annotations

from django.urls import path

from acl.web import deploy, policy, presets, schema, versions

app_name = "acl"
urlpatterns = [
    path("policy.schema.json", schema.policy_schema, name="schema"),
    path("o/<str:org_id>/access/", policy.editor, name="policy"),
    path("o/<str:org_id>/access/save/", policy.save, name="save"),
    path("o/<str:org_id>/access/check/", policy.check, name="check"),
    path("o/<str:org_id>/access/simulate/", policy.simulate_view, name="simulate"),
    path("o/<str:org_id>/access/presets/", presets.index, name="presets"),
    path("o/<str:org_id>/access/presets/<str:name>/", presets.load, name="preset"),
    path("o/<str:org_id>/access/review/", deploy.review, name="review"),
    path("o/<str:org_id>/access/deploy/", deploy.deploy_view, name="deploy"),
    path("o/<str:org_id>/access/deployments/<str:deployment_id>/", deploy.deployment, name="deployment"),
    path("o/<str:org_id>/access/versions/", versions.index, name="versions"),
    path("o/<str:org_id>/access/versions/<int:number>/", versions.version, name="version"),
    path("o/<str:org_id>/access/versions/<int:number>/rollback/", versions.rollback_view, name="rollback"),
]
