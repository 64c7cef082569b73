// Prints the messages of a room while it runs.
//
//   node before/listen.mjs [ROOM [SERVER]]      by default 1 and http://127.0.0.1:8081

const [room = "1", server = "http://127.0.0.1:8081"] = process.argv.slice(2);

const { body } = await fetch(`${server}/rooms/${room}`);
let rest = "";
for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
  const events = (rest + chunk).split("\n\n");
  rest = events.pop();
  for (const event of events) {
    if (event.startsWith(":")) console.log("listening");
    else {
      const { author, text } = JSON.parse(event.slice("data: ".length));
      console.log(`${author}: ${text}`);
    }
  }
}
