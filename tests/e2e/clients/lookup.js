// Node's two ways: dns.lookup is the C library's getaddrinfo, dns.resolve4 and dns.resolve6 are c-ares without search list.
const { promises: dns } = require('node:dns')

const ways = {
  lookup: async name => (await dns.lookup(name, { all: true })).map(found => found.address),
  resolve: async name => [...await dns.resolve4(name), ...await dns.resolve6(name).catch(() => [])],
}
const [way, name] = process.argv.slice(-2)
ways[way](name).then(addresses => addresses.forEach(address => console.log('address', address)))
