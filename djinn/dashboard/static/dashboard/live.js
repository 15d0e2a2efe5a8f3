/* Keeps a run's page live over htmx's WebSocket extension: each connection asks for what comes behind the last event that
   the page has, a message that does not begin there is dropped, and the reader is told in words how things stand. */
(() => {
  "use strict";
  const SILENCE_MS = 40000; // the server speaks every 15 s
  const NEAR_PX = 80;
  const FINAL = { 4400: "this page's address is broken; load it again", 4401: "not live: log in again", 4403: "not live: you may not see this run" };
  const WHOLE = ["run-status", "run-calls", "held", "steps", "files", "results", "offers-key", "questions-key"];
  const log = document.getElementById("log");
  const words = document.getElementById("connection");
  let heard = Date.now();
  let socket = null;
  let follows = false;
  let isOver = false;

  const cursor = () => document.getElementById("cursor").dataset.seq;
  const say = (state, text) => {
    if (words.dataset.state !== state) {
      words.dataset.state = state;
      words.textContent = text;
    }
  };
  const isAtEnd = () => {
    const bottom = log.getBoundingClientRect().bottom;
    return bottom > 0 && bottom <= window.innerHeight + NEAR_PX;
  };

  htmx.config.wsReconnectDelay = (tries) => Math.min(500 * 2 ** tries, 10000) * (0.5 + Math.random() / 2);
  htmx.createWebSocket = (address) => new WebSocket(`${address}?after=${cursor()}`);

  document.body.addEventListener("htmx:wsConnecting", () => say("connecting", "connecting"));
  document.body.addEventListener("htmx:wsOpen", (event) => {
    socket = event.detail.socketWrapper;
    heard = Date.now();
    say("live", "live");
  });
  document.body.addEventListener("htmx:wsClose", (event) => {
    const code = event.detail.event.code;
    isOver = code in FINAL;
    say(isOver ? "over" : "reconnecting", isOver ? FINAL[code] : "reconnecting");
    if (code === 1000 || code === 1001) setTimeout(() => event.detail.socketWrapper.reconnect(), 1000); // the extension would not
  });
  document.body.addEventListener("htmx:wsBeforeMessage", (event) => {
    heard = Date.now();
    const range = /^<span id="cursor"[^>]* data-after="(\d+)"/.exec(event.detail.message);
    if (range && range[1] !== cursor()) event.preventDefault(); // of a connection that was replaced: the page has this already
    follows = isAtEnd();
  });
  document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
    // What says the same as before stays: nothing is announced twice, and what the reader opened or focused remains so.
    const { target, fragment } = event.detail;
    const isSame = target.textContent.trim() === fragment.textContent.trim();
    if (WHOLE.includes(target.id) && isSame) event.detail.shouldSwap = false;
  });
  document.body.addEventListener("htmx:wsAfterMessage", () => {
    const below = log.getBoundingClientRect().bottom - window.innerHeight;
    if (follows && below > 0) window.scrollBy({ top: below + NEAR_PX / 2, behavior: "instant" });
  });
  setInterval(() => {
    if (!isOver && socket && Date.now() - heard > SILENCE_MS) {
      heard = Date.now();
      say("reconnecting", "reconnecting");
      socket.reconnect();
    }
  }, 5000);
})();
