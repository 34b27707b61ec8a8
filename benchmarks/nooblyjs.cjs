// Serves the cache of nooblyjs-core on loopback: node nooblyjs.cjs PORT, with NODE_PATH naming its node_modules.
"use strict";

const { EventEmitter } = require("node:events");
const express = require("express");
const registry = require("nooblyjs-core");

const app = express();
app.use(express.json());
registry.initialize(app, new EventEmitter(), {
  security: {
    apiKeyAuth: { apiKeys: [process.env.NOOBLY_API_KEYS], requireApiKey: true },
    servicesAuth: { requireLogin: false },
  },
});
registry.cache("memory");
app.listen(Number(process.argv[2]), "127.0.0.1");
