// <policy-editor>: the draft's textarea, upgraded to CodeMirror. The textarea stays the one source of what is sent, so
// the form, htmx and a browser without this script all work alike. The editor lives in a shadow root: CodeMirror then
// uses constructable style sheets, which a strict style-src allows.

const CM = window.CodeMirror;
const { EditorState, EditorView, keymap, tags } = CM;

const theme = EditorView.theme({
  "&": { fontSize: "var(--editor-text, 0.8125rem)", backgroundColor: "var(--surface)", color: "var(--text)", height: "100%" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6", overflow: "auto" },
  ".cm-content": { caretColor: "var(--text)", padding: "0.5rem 0" },
  ".cm-cursor, .cm-dropCursor": { borderLeftColor: "var(--text)", borderLeftWidth: "2px" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { background: "color-mix(in oklab, var(--accent) 24%, transparent)" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--text-3)", border: "0", paddingLeft: "0.25rem" },
  ".cm-activeLine": { backgroundColor: "color-mix(in oklab, var(--hover) 60%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "transparent", color: "var(--text)" },
  ".cm-selectionMatch": { backgroundColor: "var(--accent-wash)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--accent-wash)", outline: "1px solid var(--line-strong)" },
  ".cm-tooltip": { backgroundColor: "var(--raised)", color: "var(--text)", border: "1px solid var(--line-strong)", borderRadius: "6px" },
  ".cm-panels": { backgroundColor: "var(--sunken)", color: "var(--text)", borderColor: "var(--line)" },
  ".cm-panels input, .cm-panels button": { font: "inherit", color: "inherit" },
  ".cm-textfield": { backgroundColor: "var(--surface)", border: "1px solid var(--control)" },
  ".cm-button": { backgroundImage: "none", backgroundColor: "var(--surface)", border: "1px solid var(--line-strong)" },
  ".cm-searchMatch": { backgroundColor: "var(--warning-wash)" },
  ".cm-diagnostic": { fontFamily: "var(--sans)", padding: "0.35rem 0.6rem" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--bad)" },
  ".cm-diagnostic-warning": { borderLeftColor: "var(--warning)" },
});

const highlight = CM.HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" },
  { tag: tags.string, color: "var(--text)" },
  { tag: [tags.comment, tags.lineComment], color: "var(--text-3)", fontStyle: "italic" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--warning)" },
  { tag: [tags.meta, tags.separator, tags.punctuation, tags.squareBracket, tags.brace], color: "var(--text-3)" },
]);

customElements.define("policy-editor", class extends HTMLElement {
  connectedCallback() {
    if (this.view) return;
    this.area = this.querySelector("textarea");
    const sign = document.getElementById("draft-dirty");
    this.saved = sign && !sign.hidden ? null : this.area.value;  // the server knows what is not the saved draft
    const host = document.createElement("div");
    host.className = "editor-host";
    const root = host.attachShadow({ mode: "open" });
    this.append(host);
    this.area.hidden = true;
    this.view = new EditorView({
      root, parent: root, state: EditorState.create({ doc: this.area.value, extensions: this.extensions() }),
    });
    this.classList.add("rich");
    this.listen();
    this.diagnose();
    this.restore();
    this.goFromAddress();
  }

  // What was typed and not saved outlives the page: a session that ended, Back, a crash of the tab. It is kept in this
  // tab only, with the version of the draft it was typed over, so that saving it later still meets a conflict.
  get place() { return `draft:${location.pathname}`; }

  keep() {
    const etag = document.getElementById("id_etag");
    if (this.saved === null || this.area.readOnly) return;
    if (this.dirty) sessionStorage.setItem(this.place, JSON.stringify({ text: this.area.value, etag: etag.value }));
    else sessionStorage.removeItem(this.place);
  }

  restore() {
    const kept = JSON.parse(sessionStorage.getItem(this.place) || "null");
    if (!kept || this.saved === null || this.area.readOnly) return;
    if (kept.text === this.saved) {
      sessionStorage.removeItem(this.place);
      return;
    }
    document.getElementById("id_etag").value = kept.etag;
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: kept.text } });
    document.dispatchEvent(new CustomEvent("toast", {
      detail: { text: "What you typed before and did not save is back in the editor.", tone: "good" },
    }));
  }

  extensions() {
    const readOnly = this.area.readOnly;
    return [
      CM.lineNumbers(), CM.lintGutter(), CM.highlightActiveLine(), CM.highlightActiveLineGutter(), CM.drawSelection(), CM.history(),
      CM.indentOnInput(), CM.bracketMatching(), CM.indentUnit.of("  "), EditorState.tabSize.of(2), EditorState.readOnly.of(readOnly),
      CM.highlightSelectionMatches(), CM.yaml(), CM.syntaxHighlighting(highlight), theme,
      EditorView.contentAttributes.of({ "aria-label": this.getAttribute("label") || "Policy", spellcheck: "false", tabindex: "0" }),
      keymap.of([
        { key: "Mod-s", preventDefault: true, run: () => this.press("save") },
        { key: "Mod-Enter", run: () => this.press("simulate") },
        ...CM.searchKeymap, ...CM.lintKeymap, ...CM.historyKeymap, ...CM.defaultKeymap,
      ]),
      EditorView.updateListener.of((update) => { if (update.docChanged) this.changed(); }),
    ];
  }

  listen() {
    // The server's findings are in the page as a list; the gutter is made from that list, so the two always agree.
    document.addEventListener("htmx:afterSettle", (event) => {
      if (event.target.matches?.("[data-findings]") || event.target.querySelector?.("[data-findings]")) this.diagnose();
    });
    document.addEventListener("htmx:beforeRequest", (event) => {
      if (event.target.dataset.press === "save") this.sent = this.area.value;
    });
    document.addEventListener("draft-saved", () => { this.saved = this.sent; this.mark(); this.keep(); });
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("a[data-line], a[data-rule]");
      if (!link) return;
      event.preventDefault();
      const line = link.dataset.line ? Number(link.dataset.line) : this.lineOfRule(link.dataset.rule);
      if (line) this.go(line, Number(link.dataset.column || 1));
    });
    window.addEventListener("beforeunload", (event) => {
      const leaving = !this.closest("form").dataset.sent;
      if (this.dirty && leaving) event.preventDefault();
    });
  }

  get dirty() { return this.area.value !== this.saved; }

  changed() {
    this.area.value = this.view.state.doc.toString();
    this.area.dispatchEvent(new Event("input", { bubbles: true }));
    this.mark();
    this.keep();
  }

  mark() {
    const sign = document.getElementById("draft-dirty");
    if (sign) sign.hidden = !this.dirty;
  }

  press(name) {
    document.querySelector(`[data-press="${name}"]`)?.click();
    return true;
  }

  position(line, column) {
    const doc = this.view.state.doc;
    const row = doc.line(Math.min(Math.max(line || 1, 1), doc.lines));
    // The server counts characters, the editor UTF-16 units: an emoji is one of the first and two of the second.
    const before = [...row.text].slice(0, Math.max((column || 1) - 1, 0)).join("");
    return row.from + before.length;
  }

  diagnose() {
    const items = [...document.querySelectorAll("[data-findings] [data-from]")].map((item) => {
      const [line, column] = item.dataset.from.split(":").map(Number);
      const [endLine, endColumn] = item.dataset.to.split(":").map(Number);
      const from = this.position(line, column);
      return {
        from, to: Math.max(from, this.position(endLine || line, endColumn || column)),
        severity: item.dataset.level, message: item.dataset.message,
      };
    });
    items.sort((a, b) => a.from - b.from);
    this.view.dispatch(CM.setDiagnostics(this.view.state, items));
  }

  lineOfRule(id) {
    const doc = this.view.state.doc;
    const escaped = id.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const pattern = new RegExp(`["']?\\bid["']?\\s*:\\s*["']?${escaped}["']?\\s*(,|}|#|$)`);
    for (let number = 1; number <= doc.lines; number += 1) {
      if (pattern.test(doc.line(number).text)) return number;
    }
    return 0;
  }

  go(line, column) {
    const at = this.position(line, column);
    this.view.dispatch({ selection: { anchor: at }, effects: EditorView.scrollIntoView(at, { y: "center" }) });
    this.view.focus();
  }

  goFromAddress() {
    const rule = new URLSearchParams(location.search).get("rule");
    const line = rule && this.lineOfRule(rule);
    if (line) this.go(line, 1);
  }
});
