"""URLs of the health checks."""

from django.urls import path

from cloudsignal.health import views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
]
