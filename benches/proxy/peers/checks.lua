-- The checks of each family for nginx, by its own Lua and OpenSSL's functions.
local ffi = require "ffi"
local cjson = require "cjson.safe"

ffi.cdef [[
unsigned char *HMAC(const void *evp_md, const void *key, int key_len, const unsigned char *d, size_t n,
                    unsigned char *md, unsigned int *md_len);
const void *EVP_sha256(void);
int CRYPTO_memcmp(const void *a, const void *b, size_t len);
int RAND_bytes(unsigned char *buf, int num);
]]

local C = ffi.C
local digest = ffi.new("unsigned char[32]")
local length = ffi.new("unsigned int[1]")
local random = ffi.new("unsigned char[40]")
local hex = {}
for byte = 0, 255 do hex[byte] = string.format("%02x", byte) end

local checks = {}
local secrets

local function hexadecimal(bytes, from, to)
    local out = {}
    for at = from, to do out[#out + 1] = hex[bytes[at]] end
    return table.concat(out)
end

local function signature(message)
    C.HMAC(C.EVP_sha256(), secrets.key, #secrets.key, message, #message, digest, length)
    return hexadecimal(digest, 0, 31)
end

local function same(one, other)
    return #one == #other and C.CRYPTO_memcmp(one, other, #one) == 0
end

local function only(headers, name)
    local value = headers[name]
    return type(value) == "string" and value or nil
end

local function refuse(status, reason, body)
    ngx.var.reason = reason
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #body
    ngx.print(body)
    return ngx.exit(status)
end

-- Adopts or makes the identifiers of a request.
local function stamp()
    C.RAND_bytes(random, 40)
    local headers = ngx.req.get_headers()
    local id = only(headers, "x-correlation-id")
    local parent = only(headers, "traceparent")
    ngx.var.correlation = id and ngx.re.find(id, [[^[!-~]{1,128}$]], "jo") and id or hexadecimal(random, 0, 3) .. "-" .. hexadecimal(random, 4, 5) .. "-" .. hexadecimal(random, 6, 7) ..
        "-" .. hexadecimal(random, 8, 9) .. "-" .. hexadecimal(random, 10, 15)
    local trace = parent and ngx.re.match(parent, "^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$", "jo")
    ngx.var.trace = "00-" .. (trace and trace[1] or hexadecimal(random, 16, 31)) .. "-" .. hexadecimal(random, 32, 39) .. "-00"
end

local function body()
    ngx.req.read_body()
    return ngx.req.get_body_data() or ""
end

function checks.secrets(given)
    secrets = given
    secrets.bearer = "Bearer " .. given.api_token
    secrets.basic = "Basic " .. given.basic
end

function checks.valkyrie()
    stamp()
    if not ngx.re.find(ngx.var.uri, [[^/players/(session|[^/]+/(balance|transactions|gamerounds/[^/]+))$]], "jo") then
        return refuse(404, "route", '{"status":"ERROR"}')
    end
    if not ngx.var.arg_provider then return refuse(400, "provider", '{"status":"ERROR"}') end
    local headers = ngx.req.get_headers()
    local credential = only(headers, "authorization")
    if not credential or not (same(credential, secrets.bearer) or same(credential, secrets.basic)) then
        return refuse(401, "credential", '{"status":"ERROR"}')
    end
    ngx.var.caller = "valkyrie"
    local token = only(headers, "x-player-token")
    if not token or not ngx.re.find(token, [[^[!-~]{32,40}$]], "jo") then return refuse(401, "token", '{"status":"ERROR"}') end
    if ngx.shared.dead:get(token) then return refuse(401, "dead", '{"status":"ERROR"}') end
end

local routes = { authenticate = true, balance = true, debit = true, credit = true, rollback = true, terminate = true }

function checks.wallet()
    stamp()
    if ngx.var.request_method ~= "POST" or not routes[ngx.var.uri:sub(13)] or ngx.var.uri:sub(1, 12) ~= "/api/wallet/" then
        return refuse(404, "route", '{"status":false}')
    end
    local headers = ngx.req.get_headers()
    local credential = only(headers, "authorization")
    if not credential or not same(credential, secrets.basic) then return refuse(401, "credential", '{"status":false}') end
    ngx.var.caller = "fantasy-goal"
    local body = body()
    local sent = only(headers, "x-request-signature")
    if not sent or not same(sent:lower(), signature(body)) then
        return refuse(401, "signature",
            '{"status":false,"code":401,"message":"The credentials or the signature are not valid."}')
    end
    local read = cjson.decode(body)
    local token = type(read) == "table" and read.token
    if type(token) ~= "string" or not ngx.re.find(token, [[^[!-~]{1,128}$]], "jo") then
        return refuse(401, "token", '{"status":false}')
    end
    if ngx.shared.dead:get(token) then return refuse(401, "dead", '{"status":false}') end
end

local actions = {
    ping = true, identify = true, ticket_create = true, ticket_reserve = true, ticket_update = true, ticket_close = true,
    ticket_refund = true, ticket_win = true, ticket_lost = true, ticket_void = true, ticket_discard = true,
    ticket_rollback = true,
}

function checks.betstack()
    stamp()
    if ngx.var.request_method ~= "POST" or ngx.var.uri ~= "/pam" then return refuse(404, "route", '{"code":404}') end
    local headers = ngx.req.get_headers()
    local sent, timestamp = only(headers, "signature"), only(headers, "timestamp")
    if not sent or not timestamp then return refuse(403, "signature", '{"code":403}') end
    local body = body()
    local read = cjson.decode(body)
    if type(read) ~= "table" or not actions[read.action] or type(read.data) ~= "table" then
        return refuse(404, "action", '{"code":404}')
    end
    if read.data.operator ~= "operator-code" then return refuse(403, "operator", '{"code":403}') end
    ngx.var.caller = "betstack"
    local compact = ngx.re.gsub(body, [[("(?:[^"\\]|\\.)*")|\s+]], "$1", "jo")
    sent = sent:lower()
    if not same(sent, signature(timestamp .. compact)) then return refuse(403, "signature", '{"code":403}') end
    local age = ngx.time() - (tonumber(timestamp) or 0)
    if age > 300 or age < -300 then return refuse(403, "stale", '{"code":403}') end
    if not ngx.shared.once:add(sent, true, 600) then return refuse(403, "replay", '{"code":403}') end
end

function checks.count()
    local counts = ngx.shared.counts
    counts:incr(ngx.var.caller .. " " .. ngx.var.uri .. " " .. ngx.status .. " " .. ngx.var.reason, 1, 0)
    counts:incr("duration", tonumber(ngx.var.request_time) or 0, 0)
end

return checks
