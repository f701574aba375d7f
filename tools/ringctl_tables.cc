// tools/ringctl_tables.cc
#include "tools/ringctl_tables.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

namespace ringway {
namespace {

using Json = nlohmann::ordered_json;

Json parse(const std::string& text) {
  return Json::parse(text, nullptr, false);
}

// A value as a word: strings without quotes, null as "-".
std::string word(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "-";
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string word(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? "-" : word(*found);
}

// Terminals take control bytes as commands; names may hold anything.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7f; },
      '?');
  return text;
}

// Characters, so that names in UTF-8 line up.
size_t width(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U; }));
}

// Rows under headings, columns as wide as their widest cell; numbers stand at the right.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] bool empty() const { return rows_.size() == 1; }

  [[nodiscard]] std::string text(bool bold) const {
    std::string out;
    for (size_t i = 0; i < rows_.size(); ++i) {
      std::string line;
      for (size_t column = 0; column < rows_[i].size(); ++column) {
        const std::string cell = printable(rows_[i][column]);
        const std::string pad(widest(column) - width(cell), ' ');
        line += column == 0 ? "" : "  ";
        line += numeric(column) ? pad + cell : cell + pad;
      }
      line.resize(line.find_last_not_of(' ') + 1);
      out += i == 0 && bold ? "\x1b[1m" + line + "\x1b[0m\n" : line + "\n";
    }
    return out;
  }

 private:
  [[nodiscard]] size_t widest(size_t column) const {
    size_t most = 0;
    for (const auto& row : rows_) most = std::max(most, width(row[column]));
    return most;
  }
  [[nodiscard]] bool numeric(size_t column) const {
    return std::all_of(rows_.begin() + 1, rows_.end(), [column](const auto& row) {
      return row[column].find_first_not_of("0123456789-*") == std::string::npos;
    });
  }

  std::vector<std::vector<std::string>> rows_;
};

// "busy=3 idle=12": those that are not zero, or "-".
std::string non_zero(const Json& counts) {
  std::string text;
  for (const auto& [name, value] : counts.items()) {
    if (value == 0) continue;
    text += (text.empty() ? "" : " ") + name + "=" + word(value);
  }
  return text.empty() ? "-" : text;
}

std::string upper(std::string text) {
  for (char& c : text) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return text;
}

// "removable", or what keeps it from being so.
std::string blocks_removal(const Json& server) {
  if (server.value("removable", false)) return "removable";
  return non_zero(server.value("blocks_removal", Json::object()));
}

void add_server(Table& table, const Json& server, bool& marked) {
  const Json overrides = server.value("overrides", Json::object());
  const auto cell = [&](const char* key) {
    const bool set = overrides.contains(key);
    marked = marked || set;
    return word(server, key) + (set ? "*" : "");
  };
  table.add({word(server, "upstream"), word(server, "server"), word(server, "address"),
             cell("state"), word(server, "health"), cell("weight"), cell("max_requests"),
             cell("max_connections"), word(server, "in_flight"), word(server, "connecting"),
             word(server, "busy"), word(server, "idle"), word(server, "requests"),
             blocks_removal(server)});
}

// Connections by state are columns; what else is counted is one column per kind.
struct PoolColumns {
  std::vector<std::string> states;
  std::vector<std::string> kinds;
};

PoolColumns pool_columns(const Json& pools) {
  PoolColumns columns;
  const auto learn = [](std::vector<std::string>& names, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const Json& pool : pools) {
    for (const auto& [kind, counts] : pool.items()) {
      if (!counts.is_object()) continue;
      if (kind != "connections") {
        learn(columns.kinds, kind);
        continue;
      }
      for (const auto& [state, count] : counts.items()) learn(columns.states, state);
    }
  }
  return columns;
}

}  // namespace

std::string servers_table(const std::string& text, bool bold) {
  const Json json = parse(text);
  if (!json.is_object()) return text;
  Table table({"UPSTREAM", "SERVER", "ADDRESS", "STATE", "HEALTH", "WEIGHT", "MAX_REQ", "MAX_CONN",
               "IN_FLIGHT", "CONNECTING", "BUSY", "IDLE", "REQUESTS", "BLOCKS_REMOVAL"});
  bool marked = false;
  if (json.contains("servers")) {
    for (const Json& server : json["servers"]) add_server(table, server, marked);
  } else {
    add_server(table, json, marked);
  }
  return table.text(bold) + (marked ? "* set at run time, over the configuration\n" : "");
}

std::string pools_table(const std::string& text, bool bold) {
  const Json json = parse(text);
  if (!json.is_object() || !json.contains("pools")) return text;
  const Json& pools = json["pools"];
  const auto [states, kinds] = pool_columns(pools);
  std::vector<std::string> headings = {"SHARD", "UPSTREAM", "SERVER"};
  for (const auto* names : {&states, &kinds}) {
    for (const std::string& name : *names) headings.push_back(upper(name));
  }
  Table table(std::move(headings));
  Table keys({"SHARD", "UPSTREAM", "SERVER", "KEY", "CONNECTIONS"});
  for (const Json& pool : pools) {
    const bool retired = pool.value("retired", false);
    const std::string server = word(pool, "server") + (retired ? " (removed)" : "");
    std::vector<std::string> row = {word(pool, "shard"), word(pool, "upstream"), server};
    const Json connections = pool.value("connections", Json::object());
    for (const std::string& state : states) row.push_back(word(connections, state.c_str()));
    for (const std::string& kind : kinds) row.push_back(non_zero(pool.value(kind, Json::object())));
    table.add(std::move(row));
    for (const Json& entry : pool.value("keys", Json::array())) {
      Json counts = entry;
      const std::string key = word(counts, "key");
      counts.erase("key");
      if (key == "default" && pool["keys"].size() == 1) continue;  // Says no more than the above.
      keys.add({word(pool, "shard"), word(pool, "upstream"), server, key, non_zero(counts)});
    }
  }
  return table.text(bold) + (keys.empty() ? "" : "\n" + keys.text(bold));
}

std::string shards_table(const std::string& text, bool bold) {
  const Json json = parse(text);
  if (!json.is_object() || !json.contains("shards")) return text;
  Table table({"SHARD", "CPU", "ENGINE", "CLIENTS", "REQUESTS", "COUNTERS"});
  for (const Json& shard : json["shards"]) {
    table.add({word(shard, "shard"), word(shard, "cpu"), word(shard, "engine"),
               word(shard, "clients"), word(shard, "requests"),
               non_zero(shard.value("counters", Json::object()))});
  }
  return table.text(bold);
}

std::string members_table(const std::string& text) {
  const Json json = parse(text);
  if (!json.is_object()) return text;
  size_t widest = 0;
  for (const auto& [name, value] : json.items()) widest = std::max(widest, name.size());
  std::string out;
  for (const auto& [name, value] : json.items()) {
    out += name + std::string(widest - name.size() + 2, ' ') + printable(word(value)) + "\n";
  }
  return out;
}

std::string error_text(int status, const std::string& text) {
  const Json json = parse(text);
  if (!json.is_object() || !json.contains("error")) {
    return "HTTP status " + std::to_string(status) + "\n" + text;
  }
  std::string out = word(json, "error") + "\n";
  if (json.contains("text")) out += word(json, "text");
  if (json.contains("hint")) out += "hint: " + word(json, "hint") + "\n";
  return out;
}

ChangeOutcome outcome_of(const std::string& text) {
  const Json json = parse(text);
  if (!json.is_object()) return {};
  return {.acknowledged = json.value("acknowledged", true),
          .timed_out = json.value("timed_out", false)};
}

}  // namespace ringway
