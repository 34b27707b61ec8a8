// Texts to be read: JSON without loss of digits, Python, shell and bytes.

const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const PYTHON = { true: "True", false: "False", null: "None" };

/** Lays out JSON token by token, because parsing it would round long numbers. Returns pairs of class and text. */
export function layOut(json) {
  let depth = 0;
  let before = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  return (json.match(TOKENS) ?? []).flatMap((token, place, all) => {
    const closes = "}]".includes(token);
    if (closes) depth -= 1;
    const opened = "{[".includes(before) && before;
    const gap = before === ":" ? " " : before === "," || Boolean(opened) !== closes ? line() : "";
    if ("{[".includes(token)) depth += 1;
    const found = [["", ":,".includes(token) || !before ? "" : gap], [kind(token, all[place + 1]), token]];
    before = token;
    return found;
  });
}

function kind(token, next) {
  if (token[0] === '"') return next === ":" ? "name" : "string";
  return "{}[],:".includes(token) ? "" : "literal";
}

/** Writes JSON as a Python expression on one line. */
export const python = (json) => (json.match(TOKENS) ?? [])
  .map((token) => PYTHON[token] ?? (",:".includes(token) ? `${token} ` : token)).join("");

export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curl({ method, url, headers, body, guarded }) {
  const parts = [`curl${method === "GET" ? "" : ` -X ${method}`} ${quoted(url)}`];
  if (guarded) parts.push('-H "x-api-key: $NOOBLY_KEY"');
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) parts.push(`--data-raw ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

const SHOWN = 1024;

/** Shows the first bytes as hexadecimal and as characters. */
export function hex(bytes) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, SHOWN); at += 16) {
    const part = [...bytes.subarray(at, Math.min(at + 16, SHOWN))];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${digits.padEnd(47)}  ${letters}`);
  }
  if (bytes.length > SHOWN) lines.push(`… ${bytes.length - SHOWN} more bytes`);
  return lines.join("\n");
}
