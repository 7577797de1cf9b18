import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DomainEvent(_message.Message):
    __slots__ = ("event_id", "aggregate_id", "event_type", "timestamp", "version", "market_data", "trading_signal", "portfolio_change", "quote", "book_change", "bar", "funding", "other", "metadata", "schema_version", "position", "cause", "recorded_at", "schema", "store_id", "proof")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MARKET_DATA_FIELD_NUMBER: _ClassVar[int]
    TRADING_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    PORTFOLIO_CHANGE_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    BOOK_CHANGE_FIELD_NUMBER: _ClassVar[int]
    BAR_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    aggregate_id: str
    event_type: str
    timestamp: _timestamp_pb2.Timestamp
    version: int
    market_data: MarketData
    trading_signal: TradingSignal
    portfolio_change: PortfolioChange
    quote: Quote
    book_change: BookChange
    bar: Bar
    funding: Funding
    other: _any_pb2.Any
    metadata: _containers.ScalarMap[str, str]
    schema_version: int
    position: int
    cause: int
    recorded_at: _timestamp_pb2.Timestamp
    schema: str
    store_id: str
    proof: str
    def __init__(self, event_id: _Optional[str] = ..., aggregate_id: _Optional[str] = ..., event_type: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., market_data: _Optional[_Union[MarketData, _Mapping]] = ..., trading_signal: _Optional[_Union[TradingSignal, _Mapping]] = ..., portfolio_change: _Optional[_Union[PortfolioChange, _Mapping]] = ..., quote: _Optional[_Union[Quote, _Mapping]] = ..., book_change: _Optional[_Union[BookChange, _Mapping]] = ..., bar: _Optional[_Union[Bar, _Mapping]] = ..., funding: _Optional[_Union[Funding, _Mapping]] = ..., other: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., schema_version: _Optional[int] = ..., position: _Optional[int] = ..., cause: _Optional[int] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., schema: _Optional[str] = ..., store_id: _Optional[str] = ..., proof: _Optional[str] = ...) -> None: ...

class MarketData(_message.Message):
    __slots__ = ("symbol", "price", "volume", "side", "trade_id", "received_at")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    price: float
    volume: float
    side: str
    trade_id: int
    received_at: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., price: _Optional[float] = ..., volume: _Optional[float] = ..., side: _Optional[str] = ..., trade_id: _Optional[int] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TradingSignal(_message.Message):
    __slots__ = ("symbol", "action", "strength", "strategy")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    action: str
    strength: float
    strategy: str
    def __init__(self, symbol: _Optional[str] = ..., action: _Optional[str] = ..., strength: _Optional[float] = ..., strategy: _Optional[str] = ...) -> None: ...

class PortfolioChange(_message.Message):
    __slots__ = ("symbol", "quantity", "price", "fee", "kind")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    FEE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    quantity: float
    price: float
    fee: float
    kind: str
    def __init__(self, symbol: _Optional[str] = ..., quantity: _Optional[float] = ..., price: _Optional[float] = ..., fee: _Optional[float] = ..., kind: _Optional[str] = ...) -> None: ...

class Quote(_message.Message):
    __slots__ = ("symbol", "bid_price", "bid_size", "ask_price", "ask_size", "update_id", "received_at")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    BID_PRICE_FIELD_NUMBER: _ClassVar[int]
    BID_SIZE_FIELD_NUMBER: _ClassVar[int]
    ASK_PRICE_FIELD_NUMBER: _ClassVar[int]
    ASK_SIZE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float
    update_id: int
    received_at: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., bid_price: _Optional[float] = ..., bid_size: _Optional[float] = ..., ask_price: _Optional[float] = ..., ask_size: _Optional[float] = ..., update_id: _Optional[int] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BookChange(_message.Message):
    __slots__ = ("symbol", "side", "price", "size", "snapshot", "first_update_id", "update_id", "received_at")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    side: str
    price: float
    size: float
    snapshot: bool
    first_update_id: int
    update_id: int
    received_at: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., side: _Optional[str] = ..., price: _Optional[float] = ..., size: _Optional[float] = ..., snapshot: _Optional[bool] = ..., first_update_id: _Optional[int] = ..., update_id: _Optional[int] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Bar(_message.Message):
    __slots__ = ("symbol", "open", "high", "low", "close", "volume")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    def __init__(self, symbol: _Optional[str] = ..., open: _Optional[float] = ..., high: _Optional[float] = ..., low: _Optional[float] = ..., close: _Optional[float] = ..., volume: _Optional[float] = ...) -> None: ...

class Funding(_message.Message):
    __slots__ = ("symbol", "rate")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    rate: float
    def __init__(self, symbol: _Optional[str] = ..., rate: _Optional[float] = ...) -> None: ...
