"""Django REST framework with its throttling, which remembers the time of each request."""

import os

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    INSTALLED_APPS=["rest_framework"],
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
    ROOT_URLCONF=__name__,
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.urls import path
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle


class Throttle(SimpleRateThrottle):
    rate = "of the environment"

    def parse_rate(self, rate):
        return int(os.environ["LIMIT"]), int(os.environ["WINDOW_MS"]) // 1000

    def get_cache_key(self, request, view):
        return self.get_ident(request)


@api_view(["GET", "POST"])
@throttle_classes([Throttle])
def call(request):
    return Response("queued")


urlpatterns = [path("call", call)]
app = get_wsgi_application()
