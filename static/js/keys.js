// Keyboard: Ctrl/Cmd-K palette, "/" search, "?" help, g then a letter to go somewhere.

const palette = document.getElementById("palette");
const input = palette?.querySelector("input");
const options = palette ? [...palette.querySelectorAll("[role=option]")] : [];
const none = palette?.querySelector(".none");

const visible = () => options.filter((option) => !option.hidden);
const select = (option) => {
  options.forEach((other) => other.setAttribute("aria-selected", String(other === option)));
  input.setAttribute("aria-activedescendant", option ? option.id : "");
  option?.scrollIntoView({ block: "nearest" });
};

/** Letters in order, anywhere: "iscr" finds "Issue a credential". Whole words rank first by keeping the page's order. */
const matches = (text, query) => {
  let at = -1;
  for (const letter of query) {
    at = text.indexOf(letter, at + 1);
    if (at < 0) return false;
  }
  return true;
};

const filter = () => {
  const query = input.value.trim().toLowerCase().replace(/\s+/g, "");
  options.forEach((option) => { option.hidden = !matches(option.dataset.find.toLowerCase().replace(/\s+/g, ""), query); });
  const first = visible()[0];
  none.hidden = Boolean(first);
  select(first);
};

const run = (option) => {
  if (!option) return;
  palette.close();
  if (option.dataset.form) document.getElementById(option.dataset.form).requestSubmit();
  else location.assign(option.dataset.href);
};

const open = () => {
  if (!palette || palette.open) return;
  input.value = "";
  filter();
  palette.showModal();
  input.focus();
};

if (palette) {
  input.addEventListener("input", filter);
  palette.addEventListener("keydown", (event) => {
    const list = visible();
    const at = list.findIndex((option) => option.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      select(list[(at + (event.key === "ArrowDown" ? 1 : list.length - 1)) % list.length]);
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(list[at]);
    }
  });
  palette.addEventListener("click", (event) => {
    if (event.target === palette) palette.close();
    else run(event.target.closest("[role=option]"));
  });
  document.querySelectorAll("[data-open-palette]").forEach((button) => button.addEventListener("click", open));
}

const shortcuts = document.getElementById("shortcuts");
shortcuts?.addEventListener("click", (event) => {
  if (event.target === shortcuts || event.target.closest("[data-close]")) shortcuts.close();
});

// Keys without Ctrl can be turned off, for those whose voice or tremor would press them (WCAG 2.1.4).
// Where a browser keeps nothing for us, they are on again on the next page.
const remembered = (verb, ...value) => {
  try { return localStorage[verb]("single-keys", ...value); } catch { return null; }
};
let single = remembered("getItem") !== "off";
const switches = document.querySelectorAll("[data-single-keys]");
const label = () => switches.forEach((button) => { button.textContent = single ? "Turn off keys without Ctrl" : "Turn on keys without Ctrl"; });
switches.forEach((button) => button.addEventListener("click", () => {
  single = !single;
  remembered("setItem", single ? "on" : "off");
  label();
}));
label();

let armed = 0;
const typing = (event) => event.composedPath().some(
  (node) => node instanceof Element && (node.matches("input, textarea, select") || node.isContentEditable),
);

document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    event.preventDefault();
    open();
    return;
  }
  if (!single || event.ctrlKey || event.metaKey || event.altKey || typing(event) || document.querySelector("dialog[open]")) return;
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    event.preventDefault();
    if (search) { search.focus(); search.select?.(); } else open();
  } else if (event.key === "?") {
    event.preventDefault();
    shortcuts?.showModal();
  } else if (event.key === "g") {
    armed = Date.now();
  } else if (Date.now() - armed < 1500) {
    armed = 0;
    const link = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
  }
});
