// Submits the forms without a page load. Without this script they work as plain forms.

const problem = document.getElementById("problem");
const said = document.getElementById("said");
let busy = false;

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy) return;
  const { target: form, submitter } = event;
  const body = form.method === "post" ? new URLSearchParams(new FormData(form, submitter)) : undefined;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  problem.hidden = true;
  try {
    const page = await load(form.action, { method: form.method, body });
    const error = page.querySelector("main [role=alert]");
    show(error ? await load("/") : page);
    if (error) complain(error.textContent);
  } catch {
    complain("The site does not answer.");
  }
  document.body.removeAttribute("aria-busy");
  busy = false;
});

async function load(url, init) {
  const response = await fetch(url, { cache: "no-store", ...init });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

function show(page) {
  const focused = document.activeElement?.id;
  for (const part of document.querySelectorAll("[data-live]")) {
    part.replaceWith(page.getElementById(part.id));
  }
  document.title = page.title;
  if (focused) document.getElementById(focused)?.focus();
  // Announces the state, and the request that changed it: the newest one, or the one before it.
  const requests = [...document.querySelectorAll("#requests li")].slice(0, 2);
  const change = requests.find((request) => request.matches(".login, .refreshed, .cleared")) ?? requests[0];
  const parts = [document.querySelector("h1"), change.lastElementChild];
  said.textContent = parts.map((part) => part.textContent).join(". ");
}

function complain(text) {
  problem.textContent = text;
  problem.hidden = false;
}
