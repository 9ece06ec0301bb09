-- wrk: every message is another one, signed as it is sent.
local ffi = require "ffi"
ffi.cdef [[
unsigned char *HMAC(const void *evp_md, const void *key, int key_len, const unsigned char *d, size_t n,
                    unsigned char *md, unsigned int *md_len);
const void *EVP_sha256(void);
]]
local crypto = ffi.load("libcrypto.so.3")
local digest = ffi.new("unsigned char[32]")
local length = ffi.new("unsigned int[1]")
local hex = {}
for byte = 0, 255 do hex[byte] = string.format("%02x", byte) end

local run = os.getenv("RUN")
local key = os.getenv("KEY")
local number = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
    number = number + 1
    local ticket = run .. "-" .. number
    local body = '{"action": "ticket_reserve", "data": {"operator": "operator-code", "ticket_id": "' .. ticket ..
        '", "player_id": "10293", "amount": 12.50, "currency": "EUR", "note": "single"}}'
    local timestamp = tostring(os.time())
    local message = timestamp .. '{"action":"ticket_reserve","data":{"operator":"operator-code","ticket_id":"' .. ticket ..
        '","player_id":"10293","amount":12.50,"currency":"EUR","note":"single"}}'
    crypto.HMAC(crypto.EVP_sha256(), key, #key, message, #message, digest, length)
    local signature = {}
    for at = 0, 31 do signature[at + 1] = hex[digest[at]] end
    wrk.headers["timestamp"] = timestamp
    wrk.headers["signature"] = table.concat(signature)
    return wrk.format(nil, nil, nil, body)
end
