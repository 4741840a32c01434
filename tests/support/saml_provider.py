"""A SAML identity provider: its own key, real signatures, and every way of misbehaving that we know."""

from __future__ import annotations

import base64
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lxml import etree

ENTITY = "https://idp.acme.example/saml"
NAMES = {"saml": "urn:oasis:names:tc:SAML:2.0:assertion", "samlp": "urn:oasis:names:tc:SAML:2.0:protocol"}


def _pair() -> tuple[bytes, str]:
    """A private key (PEM) and its certificate as metadata carries it (base64 without armour)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30)).sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


@dataclass
class SamlProvider:
    """The provider. ``answer`` makes what the browser would post; its keywords make it wrong in one respect."""

    pair: tuple[bytes, str] = field(default_factory=_pair)

    @property
    def metadata(self) -> str:
        """What an administrator pastes."""
        return (
            f'<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{ENTITY}">'
            '<IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">'
            '<KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data>'
            f"<X509Certificate>{self.pair[1]}</X509Certificate></X509Data></KeyInfo></KeyDescriptor>"
            '<SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" '
            'Location="https://idp.acme.example/sso"/></IDPSSODescriptor></EntityDescriptor>'
        )

    def request(self, url: str) -> Any:
        """The request that a browser brings in its address."""
        sent = parse_qs(urlsplit(url).query)["SAMLRequest"][0]
        return etree.fromstring(zlib.decompress(base64.b64decode(sent), -15))

    def answer(self, url: str, **changes: Any) -> str:
        """The answer to the request in ``url``, base64, signed as ``sign`` says: assertion, response, no, weak."""
        request = self.request(url)
        facts = {
            "in_response_to": request.get("ID"), "acs": request.get("AssertionConsumerServiceURL"),
            "audience": request.findtext("saml:Issuer", namespaces=NAMES), "issuer": ENTITY,
            "subject": "s-1", "format": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
            "email": "eve@acme.example", "minutes": 5, "authenticated": 0, "sign": "assertion", **changes,
        }  # fmt: skip
        document = etree.fromstring(_document(facts).encode())
        match facts["sign"]:
            case "assertion" | "weak":
                self._sign(document.find("saml:Assertion", NAMES), weak=facts["sign"] == "weak")
            case "response":
                self._sign(document)
        return base64.b64encode(etree.tostring(document)).decode()

    def _sign(self, node: Any, *, weak: bool = False) -> None:
        method = xmlsec.Transform.RSA_SHA1 if weak else xmlsec.Transform.RSA_SHA256
        signature = xmlsec.template.create(node, xmlsec.Transform.EXCL_C14N, method, ns="ds")
        node.insert(1, signature)
        digest = xmlsec.Transform.SHA1 if weak else xmlsec.Transform.SHA256
        reference = xmlsec.template.add_reference(signature, digest, uri=f"#{node.get('ID')}")
        xmlsec.template.add_transform(reference, xmlsec.Transform.ENVELOPED)
        xmlsec.template.add_transform(reference, xmlsec.Transform.EXCL_C14N)
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_memory(self.pair[0], xmlsec.KeyFormat.PEM)
        xmlsec.tree.add_ids(node, ["ID"])
        context.sign(signature)


def _document(facts: dict[str, Any]) -> str:
    now = datetime.now(UTC)
    made, ends = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (now, now + timedelta(minutes=facts["minutes"])))
    authenticated = f"{now - timedelta(minutes=facts['authenticated']):%Y-%m-%dT%H:%M:%SZ}"
    begins = f"{now - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    answers = f'InResponseTo="{facts["in_response_to"]}"' if facts["in_response_to"] else ""
    email = (
        f'<saml:AttributeStatement><saml:Attribute Name="email"><saml:AttributeValue>{facts["email"]}'
        "</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>"
    )
    return f"""<samlp:Response xmlns:samlp="{NAMES["samlp"]}" xmlns:saml="{NAMES["saml"]}" ID="_{secrets.token_hex(8)}"
 Version="2.0" IssueInstant="{made}" Destination="{facts["acs"]}" {answers}><saml:Issuer>{facts["issuer"]}</saml:Issuer>
<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>
<saml:Assertion ID="_{secrets.token_hex(8)}" Version="2.0" IssueInstant="{made}">
<saml:Issuer>{facts["issuer"]}</saml:Issuer>
<saml:Subject><saml:NameID Format="{facts["format"]}">{facts["subject"]}</saml:NameID>
<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData
 Recipient="{facts["acs"]}" NotOnOrAfter="{ends}" {answers}/></saml:SubjectConfirmation></saml:Subject>
<saml:Conditions NotBefore="{begins}" NotOnOrAfter="{ends}"><saml:AudienceRestriction><saml:Audience>{facts["audience"]}
</saml:Audience></saml:AudienceRestriction></saml:Conditions>
<saml:AuthnStatement AuthnInstant="{authenticated}" SessionIndex="_1"><saml:AuthnContext><saml:AuthnContextClassRef>
urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext>
</saml:AuthnStatement>{email if facts["email"] else ""}</saml:Assertion></samlp:Response>""".replace(
        "\n</saml:Audience>", "</saml:Audience>"
    )
