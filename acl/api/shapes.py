"""The policy API's answers and questions, as serializers."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from acl.brokers import Condition, SeenBroker, condition, seen_brokers
from acl.models import Cluster, Deployment, Node, PolicyDraft, PolicyVersion
from acl.policy import MAX_DOCUMENT_BYTES
from acl.services.deployments import NOTE_MAX
from cloudsignal.wire.report import BROKER_STATES, CLUSTER_STATES


class Document(serializers.CharField):
    """A policy document, as it was written.

    Lone surrogates were refused when the body was read; to look at a megabyte character by character once more takes a
    thread longer than all the rest of the request.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MAX_DOCUMENT_BYTES, allow_blank=True, trim_whitespace=False, **options)
        self.validators = [
            each for each in self.validators if not isinstance(each, ProhibitSurrogateCharactersValidator)
        ]


class DraftSerializer(serializers.ModelSerializer[PolicyDraft]):
    """The draft, with its validator."""

    etag = serializers.CharField(read_only=True, help_text="Also the ETag header; send it as If-Match.")

    class Meta:
        model = PolicyDraft
        fields: ClassVar = ["text", "etag", "updated_at", "updated_by"]
        read_only_fields = fields


class TextSerializer(serializers.Serializer[Any]):
    """A policy document, YAML or JSON."""

    text = Document()


class OptionalTextSerializer(serializers.Serializer[Any]):
    """A policy document; left out, the draft."""

    text = Document(default=None, allow_null=True)


class FindingSerializer(serializers.Serializer[Any]):
    """An error or warning about a document, with its place; lines and columns count from 1."""

    level = serializers.ChoiceField(["error", "warning"])
    path = serializers.CharField(allow_blank=True)
    message = serializers.CharField()
    code = serializers.CharField()
    line = serializers.IntegerField()
    column = serializers.IntegerField()
    end_line = serializers.IntegerField()
    end_column = serializers.IntegerField()


class TestOutcomeSerializer(serializers.Serializer[Any]):
    """One of the document's own tests."""

    name = serializers.CharField()
    passed = serializers.BooleanField()
    expected = serializers.CharField()
    message = serializers.CharField(allow_blank=True)


class ValidationSerializer(serializers.Serializer[Any]):
    """Whether a document can be deployed, with its findings and test results."""

    deployable = serializers.BooleanField(help_text="No errors, and every test passes.")
    digest = serializers.CharField(allow_null=True, help_text="Of the canonical form; null when it has errors.")
    rules = serializers.IntegerField()
    findings = FindingSerializer(many=True)
    tests = TestOutcomeSerializer(many=True)


class SimulateSerializer(OptionalTextSerializer):
    """One request, checked with the code that the edge runs."""

    username = serializers.CharField(max_length=100)
    action = serializers.ChoiceField(["pub", "sub", "receive"])
    topic = serializers.CharField(max_length=65_535, trim_whitespace=False)
    client_id = serializers.CharField(max_length=65_535, default="", allow_blank=True)
    claims = serializers.DictField(
        default=None, allow_null=True, help_text="If missing: the stored claims of the username."
    )
    qos = serializers.IntegerField(default=0, min_value=0, max_value=2)
    retain = serializers.BooleanField(default=False)


class RulePartSerializer(serializers.Serializer[Any]):
    """The part of one rule in the verdict."""

    index = serializers.IntegerField()
    rule = serializers.CharField()
    effect = serializers.CharField()
    outcome = serializers.CharField()
    why = serializers.CharField()


class VerdictSerializer(serializers.Serializer[Any]):
    """The verdict, the deciding rule (null: none), and every rule's part in it."""

    allowed = serializers.BooleanField(allow_null=True, help_text="null: the document has errors.")
    rule = serializers.CharField(allow_null=True)
    reason = serializers.CharField()
    qos = serializers.IntegerField(help_text="Highest QoS granted.")
    holes = serializers.ListField(child=serializers.CharField(), help_text="Denied parts of a granted subscription.")
    partial_holes = serializers.ListField(
        child=serializers.CharField(),
        help_text="Holes of which an earlier rule allows a part, which is delivered.",
    )
    rules = RulePartSerializer(
        many=True, help_text="For more than 200 rules: those that take part in the verdict, up to 200."
    )
    rules_not_listed = serializers.IntegerField()
    claims = serializers.DictField(help_text="The claims it was checked with.")
    claims_source = serializers.ChoiceField(
        ["given", "stored", "none"], help_text="none: no identity has this username, so no claims are known."
    )
    findings = FindingSerializer(many=True)


class DiffSerializer(serializers.Serializer[Any]):
    """Two documents to compare; ``version`` numbers or texts. If missing: the active version, and the draft."""

    old_text = Document(required=False)
    new_text = Document(required=False)
    old_version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    new_version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)


class RegionSerializer(serializers.Serializer[Any]):
    """A difference between the two documents, with an example request."""

    who = serializers.CharField()
    action = serializers.ChoiceField(
        ["pub", "receive", "sub"], help_text="receive: of single topics; sub: of a filter in which no topic differs."
    )
    filter = serializers.CharField()
    rule = serializers.CharField(help_text="The changed rule that causes the difference.")
    old_rule = serializers.CharField(
        allow_null=True, help_text="The rule that decides the example in the old document; null: none."
    )
    new_rule = serializers.CharField(
        allow_null=True, help_text="The rule that decides the example in the new document; null: none."
    )
    limit = serializers.CharField(allow_blank=True)
    witness_username = serializers.CharField(source="witness.identity.username")
    witness_client_id = serializers.CharField(source="witness.identity.client_id", allow_blank=True)
    witness_topic = serializers.CharField(source="witness.topic")
    at = serializers.DateTimeField()


class ComparisonSerializer(serializers.Serializer[Any]):
    """How the new document relates to the old one."""

    relation = serializers.ChoiceField(["equivalent", "narrower", "wider", "incomparable"])
    widened = RegionSerializer(many=True)
    narrowed = RegionSerializer(many=True)
    complete = serializers.BooleanField(help_text="False when the comparison was stopped early.")


class VersionSerializer(serializers.ModelSerializer[PolicyVersion]):
    """A version, without its text."""

    class Meta:
        model = PolicyVersion
        fields: ClassVar = ["number", "digest", "note", "created_at", "created_by"]
        read_only_fields = fields


class FullVersionSerializer(VersionSerializer):
    """A version with its text, as it was written."""

    class Meta(VersionSerializer.Meta):
        fields: ClassVar = [*VersionSerializer.Meta.fields, "source"]


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    """A version that is sent to the nodes."""

    version = serializers.IntegerField(source="version.number", read_only=True)
    digest = serializers.CharField(source="version.digest", read_only=True)

    class Meta:
        model = Deployment
        fields: ClassVar = [
            "id", "version", "digest", "kind", "status", "revision", "note", "created_at", "created_by",
            "first_ack_at", "last_ack_at",
        ]  # fmt: skip
        read_only_fields = fields


class TargetSerializer(serializers.Serializer[Any]):
    """One node of a deployment."""

    node = serializers.CharField()
    online = serializers.BooleanField()
    status = serializers.CharField()
    reported_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True, help_text="From the deployment to the acknowledgement.")
    reason = serializers.CharField(allow_blank=True)


class ProgressSerializer(serializers.Serializer[Any]):
    """A deployment node by node."""

    deployment = DeploymentSerializer()
    finished = serializers.BooleanField()
    nodes = TargetSerializer(many=True)


class DeploySerializer(serializers.Serializer[Any]):
    """A note, and the deployment to replace."""

    note = serializers.CharField(max_length=NOTE_MAX, default="", allow_blank=True)
    over = serializers.CharField(
        max_length=20,
        default="",
        allow_blank=True,
        help_text="Only if this deployment, by ID, is the active one; else 412.",
    )


class RollbackSerializer(DeploySerializer):
    """The version to activate, and a note."""

    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)


class ClusterSerializer(serializers.ModelSerializer[Cluster]):
    """A broker cluster."""

    class Meta:
        model = Cluster
        fields: ClassVar = ["name", "created_at"]
        read_only_fields = fields


class SeenBrokerSerializer(serializers.Serializer[SeenBroker]):
    """A broker node as one edge node finds it."""

    broker = serializers.CharField(
        source="label", help_text="Host and port, with the address where a name has several."
    )
    state = serializers.ChoiceField(
        choices=BROKER_STATES, help_text="`unknown` also while the edge node itself is offline."
    )
    why = serializers.CharField(help_text="The trouble in a sentence; empty while it is reachable.")
    since = serializers.DateTimeField(allow_null=True, help_text="Time since which it is in this state.")
    at = serializers.DateTimeField(allow_null=True, help_text="Time of the last probe.")
    latency_ms = serializers.FloatField(allow_null=True, help_text="Milliseconds from connecting to the ping's answer.")
    members = serializers.ListField(
        child=serializers.CharField(), help_text="Cluster members that run, as it sees them; needs a status URL."
    )
    missing = serializers.ListField(child=serializers.CharField(), help_text="Members that do not run.")
    cluster = serializers.ChoiceField(choices=CLUSTER_STATES, help_text="Whether all nodes see the same members.")
    draining = serializers.BooleanField(help_text="Whether it takes no new clients.")
    drops = serializers.IntegerField(
        allow_null=True, help_text="Messages its queues have dropped since it started; null when it does not say."
    )


class NodeSerializer(serializers.ModelSerializer[Node]):
    """An edge node."""

    cluster = serializers.CharField(source="cluster.name", read_only=True)
    condition = serializers.SerializerMethodField(
        help_text="`online`, `some_brokers` (one or more cannot be reached), `no_broker`, or `offline`."
    )
    brokers = serializers.SerializerMethodField(help_text="Each broker node as this edge node finds it.")

    class Meta:
        model = Node
        fields: ClassVar = [
            "name", "cluster", "address", "online", "condition", "brokers", "sessions", "registered_at", "started_at",
            "last_seen", "retired_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(choices=[condition.value for condition in Condition]))
    def get_condition(self, node: Node) -> str:
        """Whether the edge node is alive and reaches its brokers."""
        return condition(node).value

    @extend_schema_field(SeenBrokerSerializer(many=True))
    def get_brokers(self, node: Node) -> list[dict[str, Any]]:
        """Each broker node as the edge node reports it."""
        return [SeenBrokerSerializer(seen).data for seen in seen_brokers(node)]
