// The page put together: the search box, the views, the keys; everything follows from the address.

import * as collection from "./collection.js";
import * as compare from "./compare.js";
import * as detail from "./detail.js";
import { byId, fill, make, notice } from "./dom.js";
import * as filters from "./filters.js";
import * as search from "./search.js";
import { address, go, onChange, read } from "./state.js";
import * as tuning from "./tuning.js";

const VIEWS = {
  search: ["Search", search], compare: ["Compare", compare], collection: ["Collection", collection], tuning: ["Tuning", tuning],
};
const PAUSE = 150; // milliseconds without a key until a query is asked; as long as a search takes, where that is longer…
const LONGEST_PAUSE = 600; // …but no longer than this

const box = byId("query");
let typing = null;

// -- from the address to what is shown -----------------------------------------------------------------------------------

function show(state, before = null) {
  const [name, view] = VIEWS[state.view];
  const about = view === search ? state.q : name;
  document.title = about ? `${about} – twinrank` : "twinrank";
  if (document.activeElement !== box || !typing) box.value = state.q;
  document.body.dataset.view = state.view;
  menu(state);
  const asks = state.view === "search" || state.view === "compare";
  byId("side").hidden = !asks;
  filters.show(state);
  if (before && before.view !== state.view) {
    VIEWS[before.view][1].stop();
    fill(byId("view"));
    byId("progress").hidden = true;
    scrollTo(0, 0);
  }
  detail.show(state, before, view.show(state));
}

const links = Object.entries(VIEWS).map(([name, [told]]) => [name, make("a", {}, told)]);
fill(byId("views"), links.map(([, link]) => link));

/** The links to the views, with the query taken along; they stay the same elements, so that one keeps the focus. */
function menu(state) {
  for (const [name, link] of links) {
    link.href = address({ view: name, doc: "", tab: "text" }, state);
    if (name === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// -- the search box ------------------------------------------------------------------------------------------------------

/** Ask for what stands in the box. While one types, going back does not come by every letter. */
function ask({ replace }) {
  clearTimeout(typing);
  typing = null;
  const state = read(), view = state.view === "compare" ? "compare" : "search";
  go({ q: box.value.trim() ? box.value : "", view, doc: "", tab: "text" }, { replace: replace && state.view === view });
}

function pause() {
  return read().view === "compare" ? LONGEST_PAUSE : Math.max(PAUSE, Math.min(search.took(), LONGEST_PAUSE));
}

box.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => ask({ replace: true }), pause());
});

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask({ replace: false });
});

// -- keys and links ------------------------------------------------------------------------------------------------------

const isField = (element) => element.matches("input, select, textarea");

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || byId("key").open) return;
  const at = document.activeElement, inBox = at === box, inHit = Boolean(at.closest(".hit"));
  if (event.key === "/" && !isField(at)) {
    box.focus();
    box.select();
  } else if (event.key === "Escape") {
    if (!escape(inBox)) return;
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (inBox || inHit || at === document.body)) {
    if (!inHit && event.key === "ArrowUp") return;
    if (!search.step(event.key === "ArrowDown" ? 1 : -1)) return;
  } else return;
  event.preventDefault();
});

/** One step back: the document closed, then the box, then what stands in it. */
function escape(inBox) {
  if (detail.leave()) return true;
  if (!inBox) {
    box.focus();
    return true;
  }
  if (!box.value) return false;
  box.value = "";
  ask({ replace: true });
  return true;
}

/** Links within the page change what is shown, without fetching the page again. */
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='?']");
  const elsewhere = event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey; // a new tab, say
  if (!link || elsewhere || event.defaultPrevented) return;
  event.preventDefault();
  if (typing && byId("views").contains(link)) ask({ replace: true }); // what was typed just now is taken along
  clearTimeout(typing);
  typing = null;
  go(read(new URL(link.href).search));
});

// -- the beginning -------------------------------------------------------------------------------------------------------

onChange(show);
filters.load().then(() => {
  if (read().view === "search") search.refresh(read());
}).catch((error) => {
  if (!read().q) fill(byId("view"), notice(error.message, "error"));
});
show(read());
if (read().view === "search" && !read().q && matchMedia("(hover: hover)").matches) box.focus();
