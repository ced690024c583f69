"use strict";
// The live part of the demo's page: shows the event stream and the WebSocket, and what became of them.
const show = (id, text) => { document.getElementById(id).textContent = text; };
const here = new URL(".", location.href);

const events = new EventSource(new URL("events", here));
events.addEventListener("tick", (event) => {
  const tick = JSON.parse(event.data);
  show("events-state", "open");
  show("events-last", `tick ${tick.number} at ${tick.at} UTC`);
});
events.onerror = () => show("events-state", events.readyState === 2 ? "refused" : "interrupted, trying again");

const address = new URL("ws", here);
address.protocol = address.protocol.replace("http", "ws");
const socket = new WebSocket(address);
socket.onopen = () => show("ws-state", "open");
socket.onclose = (event) => show("ws-state", `closed (${event.code} ${event.reason})`);
socket.onmessage = (event) => {
  const message = JSON.parse(event.data);
  if (message.type === "tick") show("ws-last", `tick ${message.number}`);
  else show("ws-echo", message.text);
};
document.getElementById("say").addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(document.getElementById("text").value);
});
