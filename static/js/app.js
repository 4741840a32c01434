// Behaviour shared by every page. Everything here adds to pages that already work without it.

const status = (text) => {
  const line = document.getElementById("status");
  if (line) line.textContent = text;
};

const icon = (name) => {
  const sprite = document.querySelector('meta[name="icons"]').content;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${sprite}#${name}`);
  svg.append(use);
  return svg;
};

/** A message in the corner, also read out. The same text twice in a row is shown once. */
export const toast = (text, tone = "bad") => {
  const box = document.getElementById("toasts");
  if (!box || [...box.children].some((item) => item.dataset.text === text)) return;
  const item = document.createElement("div");
  const close = document.createElement("button");
  const words = document.createElement("div");
  item.className = "toast";
  item.dataset.tone = tone;
  item.dataset.text = text;
  words.textContent = text;
  close.type = "button";
  close.setAttribute("aria-label", "Dismiss");
  close.append(icon("x"));
  close.addEventListener("click", () => item.remove());
  item.append(icon(tone === "good" ? "ok" : tone), words, close);
  box.append(item);
  status(text);
  leave(item);
};

/** A message goes by itself, unless it says that something went wrong: that has to be read. */
const leave = (item) => { if (item.dataset.tone !== "bad") setTimeout(() => item.remove(), 8000); };

// --- <copy-button value="..."> or <copy-button for="id"> ------------------------------------------------------------
customElements.define("copy-button", class extends HTMLElement {
  connectedCallback() {
    if (this.firstChild) return;
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", this.getAttribute("label") || "Copy");
    button.title = this.getAttribute("label") || "Copy";
    button.append(icon("copy"));
    button.addEventListener("click", () => this.copy(button));
    this.append(button);
  }

  text() {
    const source = this.getAttribute("for");
    return source ? document.getElementById(source).textContent : this.getAttribute("value");
  }

  async copy(button) {
    try {
      await navigator.clipboard.writeText(this.text());
    } catch {
      const area = document.createElement("textarea");
      area.value = this.text();
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.replaceChildren(icon("check"));
    button.dataset.done = "";
    status("Copied");
    this.dispatchEvent(new CustomEvent("copied", { bubbles: true }));
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      delete button.dataset.done;
    }, 1600);
  }
});

// --- <relative-time><time datetime="..."> ---------------------------------------------------------------------------
// The same words as cloudsignal.web.formatting.ago, which rendered the first text.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];
// By the server's clock: that of a visitor may be wrong by more than the page took to arrive.
const behind = Date.now() - Date.parse(document.querySelector('meta[name="now"]')?.content);
const skew = Math.abs(behind) > 20_000 ? behind : 0;
const ago = (moment) => {
  const seconds = Math.round((Date.now() - skew - moment) / 1000);
  let size = Math.abs(seconds);
  if (size < 5) return "now";
  if (seconds < -59) size = Math.round(size / 60) * 60;
  const [unit, name] = UNITS.find(([length]) => size >= length) || [1, "s"];
  const amount = `${Math.floor(size / unit)} ${name}`;
  return seconds < 0 ? `in ${amount}` : `${amount} ago`;
};
const clocks = new Set();
customElements.define("relative-time", class extends HTMLElement {
  connectedCallback() { clocks.add(this); }
  disconnectedCallback() { clocks.delete(this); }
  tick() {
    const time = this.querySelector("time");
    const moment = Date.parse(time?.dateTime);
    const text = ago(moment);
    if (!Number.isNaN(moment) && time.textContent !== text) time.textContent = text;
  }
});
setInterval(() => { if (!document.hidden) clocks.forEach((clock) => clock.tick()); }, 5000);

// --- <secret-once>: what must not be seen again is taken out when the page comes back from the back/forward cache ----
customElements.define("secret-once", class extends HTMLElement {
  connectedCallback() {
    this.onshow = (event) => {
      if (!event.persisted) return;
      const gone = document.createElement("p");
      gone.className = "hint";
      gone.textContent = "The password was shown once and cannot be shown again. If you did not store it, issue another credential.";
      this.replaceChildren(gone);
    };
    window.addEventListener("pageshow", this.onshow);
  }
  disconnectedCallback() { window.removeEventListener("pageshow", this.onshow); }
});

// --- <bulk-run file="...">: the parts of a long result in one file -----------------------------------------------------
customElements.define("bulk-run", class extends HTMLElement {
  connectedCallback() {
    const links = [...this.querySelectorAll(".run-step a[download]")];
    const actions = this.querySelector(".run-end .actions");
    if (!actions || links.length < 2) return;
    const texts = links.map(({ href }) => decodeURIComponent(href.slice(href.indexOf(",") + 1)));
    const rows = texts.map((text, index) => (index ? text.slice(text.indexOf("\r\n") + 2) : text));
    const whole = document.createElement("a");
    whole.className = "btn btn-primary";
    whole.download = this.getAttribute("file");
    whole.href = URL.createObjectURL(new Blob(rows, { type: "text/csv;charset=utf-8" }));
    whole.append(icon("download"), "Download all in one file");
    actions.prepend(whole);
  }
});

// --- <live-control>: lets a reader pause the polling of the element named by `for` -------------------------------------
customElements.define("live-control", class extends HTMLElement {
  connectedCallback() {
    this.button = this.querySelector("button");
    this.button.addEventListener("click", () => this.toggle());
    this.guard = (event) => {
      const stopped = this.paused || document.hidden;
      if (stopped && event.target.id === this.getAttribute("for")) event.preventDefault();
    };
    document.addEventListener("htmx:beforeRequest", this.guard);
  }
  disconnectedCallback() { document.removeEventListener("htmx:beforeRequest", this.guard); }
  toggle() {
    this.paused = !this.paused;
    this.querySelector(".live").toggleAttribute("data-paused", this.paused);
    this.querySelector("[data-word]").textContent = this.paused ? "Paused" : "Live";
    this.button.querySelector("span").textContent = this.paused ? "Resume" : "Pause";
    status(this.paused ? "Live updates paused" : "Live updates resumed");
  }
});

// --- <confirm-host>: a confirm page that htmx fetched is shown as a dialog ----------------------------------------------
customElements.define("confirm-host", class extends HTMLElement {
  connectedCallback() {
    this.dialog = this.querySelector("dialog");
    this.addEventListener("htmx:afterSwap", () => {
      if (!this.dialog.open && this.dialog.textContent.trim()) {
        this.opener = document.activeElement;
        this.dialog.showModal();
        // What cannot be undone is not one more Enter away.
        if (this.dialog.querySelector(".btn-danger") && this.dialog.contains(document.activeElement) && !document.activeElement.matches("input, select, textarea")) {
          this.dialog.querySelector("[data-close]")?.focus();
        }
      }
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog || event.target.closest("[data-close]")) {
        event.preventDefault();
        this.dialog.close();
      }
    });
    this.dialog.addEventListener("close", () => {
      this.dialog.replaceChildren();
      this.opener?.focus?.();
    });
  }
});

// --- menus: <details class="menu"> closes on Escape, on a click elsewhere and when the focus leaves ----------------------
const closeMenus = (except) => document.querySelectorAll("details.menu[open]").forEach((menu) => {
  if (!except || !menu.contains(except)) menu.open = false;
});
document.addEventListener("click", (event) => closeMenus(event.target));
document.addEventListener("focusin", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".toast [data-dismiss]");
  if (button) button.closest(".toast").remove();
});

// On a narrow screen navigation and tabs are rows that scroll: begin with the page one is on. Not by scrollIntoView:
// browsers begin the next Tab at what was scrolled to, and the skip link would no longer come first.
for (const here of document.querySelectorAll(":is(.rail .nav, .tabs) [aria-current]")) {
  const row = here.closest("nav");
  row.scrollLeft += here.getBoundingClientRect().left - row.getBoundingClientRect().left - (row.clientWidth - here.offsetWidth) / 2;
}

// --- rows that a phone shows as cards: every value with the name of its column ------------------------------------------
const label = () => document.querySelectorAll(".list .table").forEach((table) => {
  const heads = [...table.querySelectorAll("thead th")];
  for (const row of table.tBodies[0]?.rows || []) {
    [...row.cells].forEach((cell, column) => {
      const head = heads[column];
      const named = column && head && cell.colSpan === 1 && !head.querySelector(".sr-only") && cell.textContent.trim();
      if (named) cell.dataset.label = head.textContent.trim();
    });
  }
});
label();
document.addEventListener("htmx:afterSwap", label);

// --- forms: filters apply on change; a form is sent once ------------------------------------------------------------------
document.addEventListener("change", (event) => {
  const form = event.target.closest?.("form[data-autosubmit]");
  if (form && event.target.matches("select, input[type=radio], input[type=checkbox]")) form.requestSubmit();
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) event.preventDefault();
  else form.dataset.sent = "1";
});
const unsend = () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
window.addEventListener("pageshow", unsend);
// Whoever is asked whether to leave, and stays, may send again: a timer set here runs only then.
window.addEventListener("beforeunload", (event) => setTimeout(() => { if (event.defaultPrevented) unsend(); }));

// --- what is replaced while somebody reads it: stays while text of it is selected, keeps its place and the focus ----------
let kept = null;
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig, xhr } = event.detail;
  const selected = getSelection();
  const reading = !selected.isCollapsed && target.contains(selected.anchorNode);
  if (reading && requestConfig.elt === target && xhr.status === 200) event.detail.shouldSwap = false;
  const focus = target.contains(document.activeElement) ? document.activeElement : null;
  kept = {
    id: target.id, at: [...target.querySelectorAll(".scroll")].map((box) => box.scrollLeft),
    href: focus?.getAttribute("href"), name: focus?.className,
  };
});
document.addEventListener("htmx:afterSwap", () => {
  const target = kept?.id && document.getElementById(kept.id);
  if (!target) return;
  target.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = kept.at[index] || 0; });
  if (kept.href && document.activeElement === document.body) {
    const again = [...target.querySelectorAll("a")].find((link) => link.getAttribute("href") === kept.href && link.className === kept.name);
    again?.focus({ preventScroll: true });
  }
  kept = null;
});

// --- the token of forms: renewed when somebody comes back from a tab in which they may have signed in again ---------------
const person = document.querySelector('meta[name="person"]');
const renew = async () => {
  if (!person) return;
  let found;
  try {
    found = await (await fetch(person.dataset.session, { headers: { Accept: "application/json" } })).json();
  } catch {
    return;
  }
  if (found.person && found.person !== person.content) {
    toast("You are now signed in as another person. Copy what you typed before you reload this page.");
    return;
  }
  document.querySelectorAll('input[name="csrfmiddlewaretoken"]').forEach((input) => { input.value = found.token; });
};
window.addEventListener("focus", renew);
document.addEventListener("session-changed", renew);

// --- htmx: nothing fails in silence ------------------------------------------------------------------------------------
const AWAY = "CloudSignal is unavailable. Nothing you typed is lost; try again in a moment.";
document.addEventListener("htmx:sendError", () => toast(AWAY));
document.addEventListener("htmx:afterOnLoad", () => document.querySelectorAll(".toast").forEach((item) => {
  if (item.dataset.text === AWAY) item.remove();
}));
// What the server refuses in words is no part of a page.
const words = (xhr) => ((xhr.getResponseHeader("Content-Type") || "").startsWith("text/plain") ? xhr.responseText : "");
document.addEventListener("htmx:beforeSwap", (event) => {
  const said = event.detail.xhr.status < 400 ? "" : words(event.detail.xhr);
  if (said && event.detail.shouldSwap) {
    event.detail.shouldSwap = false;
    toast(said);
  }
});
document.addEventListener("htmx:responseError", (event) => {
  const code = event.detail.xhr.status;
  const said = words(event.detail.xhr);
  if (code === 401) toast("You are signed out. Sign in in another tab and come back: nothing you typed is lost.");
  else if (said) toast(said);
  else if (code === 403) toast("Your role does not allow this.");
  else if (code === 404) toast("This no longer exists, or you have no access to it.");
  else toast(`The server answered with an error (${code}). Nothing was changed.`);
});
document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.tone));
document.querySelectorAll(".toast[data-text]").forEach(leave);
