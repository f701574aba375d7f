// proto/http1_names.cc - the small public look-ups: methods, errors, reason phrases, names.
#include <llhttp.h>

#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "proto/http1_head.h"
#include "proto/http1_write.h"

namespace ringway::http1 {
namespace {

std::string_view client_error_phrase(uint16_t status) {
  switch (status) {
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 407: return "Proxy Authentication Required";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 423: return "Locked";
    case 424: return "Failed Dependency";
    case 425: return "Too Early";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 451: return "Unavailable For Legal Reasons";
    default: return "Unknown";
  }
}

std::string_view server_error_phrase(uint16_t status) {
  switch (status) {
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 506: return "Variant Also Negotiates";
    case 507: return "Insufficient Storage";
    case 508: return "Loop Detected";
    case 511: return "Network Authentication Required";
    default: return "Unknown";
  }
}

}  // namespace

bool is_idempotent(Method method) {
  switch (method) {
    case Method::kGet:
    case Method::kHead:
    case Method::kPut:
    case Method::kDelete:
    case Method::kOptions:
    case Method::kTrace: return true;
    case Method::kPost:
    case Method::kPatch:
    case Method::kConnect:
    case Method::kOther: return false;
  }
  return false;
}

// The usual ones first; the rest is the list that the parser of HTTP/1 accepts.
bool find_method(std::string_view text, Method& method) {
  struct Known {
    std::string_view text;
    Method method;
  };
  constexpr Known kUsual[] = {
      {"GET", Method::kGet},         {"POST", Method::kPost},   {"HEAD", Method::kHead},
      {"OPTIONS", Method::kOptions}, {"PUT", Method::kPut},     {"DELETE", Method::kDelete},
      {"PATCH", Method::kPatch},     {"TRACE", Method::kTrace}, {"CONNECT", Method::kConnect},
  };
#define RW_METHOD_TEXT(number, name, string) #string,
  constexpr std::string_view kAll[] = {HTTP_METHOD_MAP(RW_METHOD_TEXT)};
#undef RW_METHOD_TEXT
  for (const Known& known : kUsual) {
    if (text != known.text) continue;
    method = known.method;
    return true;
  }
  method = Method::kOther;
  for (const std::string_view known : kAll) {
    if (text == known) return true;
  }
  return false;
}

int status_of(HeadError error) {
  switch (error) {
    case HeadError::kNone: return 200;
    case HeadError::kBadStartLine:
    case HeadError::kBadTarget:
    case HeadError::kBadField:
    case HeadError::kBadHost:
    case HeadError::kBadFraming: return 400;
    case HeadError::kHeadTooLarge:
    case HeadError::kTooManyFields: return 431;
    case HeadError::kUriTooLong: return 414;
    case HeadError::kUnknownMethod:
    case HeadError::kUnknownCoding: return 501;
    case HeadError::kBadVersion: return 505;
    case HeadError::kConnectRefused: return 405;
  }
  return 400;
}

const char* phrase_of(HeadError error) {
  switch (error) {
    case HeadError::kNone: return "no error";
    case HeadError::kBadStartLine: return "malformed start line";
    case HeadError::kBadTarget: return "malformed request target";
    case HeadError::kBadField: return "malformed header field";
    case HeadError::kBadHost: return "missing, repeated, malformed or contradicting Host";
    case HeadError::kBadFraming: return "doubtful message framing";
    case HeadError::kHeadTooLarge: return "head too large";
    case HeadError::kTooManyFields: return "too many header fields";
    case HeadError::kUriTooLong: return "request target too long";
    case HeadError::kUnknownMethod: return "unknown method";
    case HeadError::kUnknownCoding: return "unknown transfer coding";
    case HeadError::kBadVersion: return "HTTP version not supported";
    case HeadError::kConnectRefused: return "CONNECT is not offered";
  }
  return "unknown error";
}

const Field* Head::find(FieldId id) const {
  for (const Field& field : fields) {
    if (field.id == id) return &field;
  }
  return nullptr;
}

const Field* Head::find(std::string_view lower_name) const {
  for (const Field& field : fields) {
    if (equal_nocase(name(field), lower_name)) return &field;
  }
  return nullptr;
}

// IANA's registry of status codes, with the phrases of RFC 9110 15.
std::string_view reason_phrase(uint16_t status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 102: return "Processing";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 207: return "Multi-Status";
    case 208: return "Already Reported";
    case 226: return "IM Used";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 305: return "Use Proxy";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    default: return status < 500 ? client_error_phrase(status) : server_error_phrase(status);
  }
}

bool valid_field_name(std::string_view name) {
  for (const char c : name) {
    if (c >= 'A' && c <= 'Z') return false;
  }
  return is_token(name);
}

bool valid_field_value(std::string_view value) {
  return trim(value).size() == value.size() && is_line_text(value);
}

}  // namespace ringway::http1
