"""What a Core-X runs until it has answered its first request, and the warm-up of the template does not wear in.

The interpreter counts in the instructions of a function how often they ran, until it has made them into faster ones:
each of these is written to in every container. `core0.template.density` has them lie together.

What is not here costs memory, nothing else; a name that there is no more is passed over.
"""

# By module, the qualified names of its functions; `*` for all, as of ours, which mostly run then.
WRITTEN: dict[str, str] = {
    "_weakrefset": """
        WeakSet.__contains__ WeakSet.__init__ WeakSet.__init__.<locals>._remove WeakSet.__iter__
        WeakSet.__len__ WeakSet._commit_removals WeakSet.add WeakSet.discard _IterationGuard.__enter__
        _IterationGuard.__exit__ _IterationGuard.__init__
    """,
    "asyncio.base_events": """
        BaseEventLoop.__init__ BaseEventLoop._check_running BaseEventLoop._run_forever_setup
        BaseEventLoop._run_once BaseEventLoop._set_coroutine_origin_tracking BaseEventLoop.call_later
        BaseEventLoop.call_soon_threadsafe BaseEventLoop.create_server BaseEventLoop.create_task
        BaseEventLoop.run_forever BaseEventLoop.run_until_complete BaseEventLoop.set_debug Server.__init__
        Server._attach Server._detach Server._start_serving _check_ssl_socket _set_nodelay
    """,
    "asyncio.base_futures": "isfuture",
    "asyncio.coroutines": "_is_debug_mode iscoroutine iscoroutinefunction",
    "asyncio.events": """
        BaseDefaultEventLoopPolicy.new_event_loop Handle.__init__ Handle._run Handle.cancel
        TimerHandle.__init__ get_child_watcher get_event_loop_policy new_event_loop on_fork
    """,
    "asyncio.futures": "_get_loop",
    "asyncio.locks": "Event.__init__ Event.set Event.wait",
    "asyncio.selector_events": """
        BaseSelectorEventLoop.__init__ BaseSelectorEventLoop._accept_connection
        BaseSelectorEventLoop._accept_connection2 BaseSelectorEventLoop._add_reader
        BaseSelectorEventLoop._close_self_pipe BaseSelectorEventLoop._ensure_fd_no_transport
        BaseSelectorEventLoop._make_self_pipe BaseSelectorEventLoop._make_ssl_transport
        BaseSelectorEventLoop._process_events BaseSelectorEventLoop._read_from_self
        BaseSelectorEventLoop._remove_reader BaseSelectorEventLoop._remove_writer
        BaseSelectorEventLoop._start_serving BaseSelectorEventLoop._write_to_self
        BaseSelectorEventLoop.add_reader _SelectorSocketTransport.__init__
        _SelectorSocketTransport._call_connection_lost _SelectorSocketTransport._read_ready
        _SelectorSocketTransport._read_ready__get_buffer _SelectorSocketTransport._read_ready__on_eof
        _SelectorSocketTransport.close _SelectorSocketTransport.set_protocol _SelectorSocketTransport.write
        _SelectorTransport.__del__ _SelectorTransport.__init__ _SelectorTransport._add_reader
        _SelectorTransport._call_connection_lost _SelectorTransport.close _SelectorTransport.is_closing
        _SelectorTransport.is_reading _SelectorTransport.set_protocol
    """,
    "asyncio.sslproto": """
        SSLProtocol.__init__ SSLProtocol._call_eof_received SSLProtocol._control_app_writing
        SSLProtocol._control_ssl_reading SSLProtocol._do_flush SSLProtocol._do_handshake
        SSLProtocol._do_read SSLProtocol._do_read__copied SSLProtocol._do_shutdown SSLProtocol._do_write
        SSLProtocol._get_app_transport SSLProtocol._get_extra_info SSLProtocol._get_read_buffer_size
        SSLProtocol._get_write_buffer_size SSLProtocol._is_transport_closing
        SSLProtocol._on_handshake_complete SSLProtocol._on_shutdown_complete SSLProtocol._process_outgoing
        SSLProtocol._set_app_protocol SSLProtocol._set_state SSLProtocol._start_handshake
        SSLProtocol._start_shutdown SSLProtocol._wakeup_waiter SSLProtocol._write_appdata
        SSLProtocol.buffer_updated SSLProtocol.connection_lost SSLProtocol.connection_made
        SSLProtocol.eof_received SSLProtocol.get_buffer _SSLProtocolTransport.__del__
        _SSLProtocolTransport.__init__ _SSLProtocolTransport.close _SSLProtocolTransport.get_extra_info
        _SSLProtocolTransport.is_closing _SSLProtocolTransport.write add_flowcontrol_defaults
    """,
    "asyncio.streams": """
        FlowControlMixin.__init__ FlowControlMixin.connection_lost StreamReader.__init__
        StreamReader._wait_for_data StreamReader._wakeup_waiter StreamReader.feed_data StreamReader.read
        StreamReaderProtocol.__del__ StreamReaderProtocol.__init__ StreamReaderProtocol.connection_lost
        StreamReaderProtocol.connection_made StreamReaderProtocol.eof_received StreamWriter.__del__
        StreamWriter.close StreamWriter.drain StreamWriter.get_extra_info StreamWriter.wait_closed
        StreamWriter.write
    """,
    "asyncio.tasks": "_GatheringFuture.__init__ __sleep0 _wait ensure_future gather sleep wait",
    "asyncio.timeouts": """
        Timeout.__aenter__ Timeout.__aexit__ Timeout.__init__ Timeout.reschedule timeout timeout_at
    """,
    "asyncio.transports": """
        BaseTransport.__init__ _FlowControlMixin.__init__ _FlowControlMixin._set_write_buffer_limits
    """,
    "asyncio.unix_events": """
        _UnixSelectorEventLoop.__init__ _UnixSelectorEventLoop._check_signal
        _UnixSelectorEventLoop._child_watcher_callback _UnixSelectorEventLoop._process_self_data
        _UnixSelectorEventLoop.add_signal_handler
    """,
    "codecs": "IncrementalEncoder.__init__",
    "collections.abc": "Coroutine.__subclasshook__ _check_methods",
    "contextlib": """
        ExitStack.__exit__ ExitStack.close _BaseExitStack.__init__ _BaseExitStack._create_cb_wrapper
        _BaseExitStack._push_exit_callback _BaseExitStack.callback _BaseExitStack.pop_all
        _GeneratorContextManager.__exit__ _GeneratorContextManagerBase.__init__
        _GeneratorContextManagerBase._recreate_cm suppress.__enter__ suppress.__exit__
    """,
    "core0.linux.files": "*",
    "core0.linux.libc": "*",
    "core0.linux.mounts": "*",
    "core0.linux.privileges": "*",
    "core0.template.child": "*",
    "core0.template.root": "*",
    "corex.console.assets": "*",
    "corex.http.connection": "*",
    "corex.http.hosts": "*",
    "corex.http.routes": "*",
    "corex.http.server": "*",
    "corex.main": "*",
    "corex.process.accounts": "*",
    "corex.process.events": "*",
    "corex.process.figures": "*",
    "corex.process.life": "*",
    "corex.process.logs": "*",
    "corex.process.manager": "*",
    "corex.process.model": "*",
    "corex.process.output": "*",
    "corex.process.reap": "*",
    "corex.process.spawn": "*",
    "corex.rest.access": "*",
    "corex.rest.api": "*",
    "corex.rest.auditing": "*",
    "corex.rest.kept": "*",
    "ctypes": "CDLL.__getattr__ CDLL.__getitem__",
    "enum": """
        Enum.__deepcopy__ Enum.__new__ EnumType.__call__ Flag.__and__ Flag.__or__ Flag.__xor__
        Flag._get_value auto.__repr__
    """,
    "functools": "_unwrap_partial _unwrap_partialmethod",
    "h11._connection": """
        Connection.__init__ Connection._clean_up_response_headers_for_sending
        Connection._extract_next_receive_event Connection._get_io_object Connection._process_event
        Connection._respond_to_state_changes Connection.next_event Connection.receive_data
        Connection.send_with_data_passthrough Connection.states _body_framing _keep_alive
    """,
    "h11._events": """
        Data.__init__ EndOfMessage.__init__ Request.__init__ _ResponseBase.__init__
        __create_fn__.<locals>.__eq__
    """,
    "h11._headers": """
        Headers.__getitem__ get_comma_header has_expect_100_continue normalize_and_validate
    """,
    "h11._readers": "ContentLengthReader.__call__ _obsolete_line_fold maybe_read_from_IDLE_client",
    "h11._receivebuffer": """
        ReceiveBuffer.__iadd__ ReceiveBuffer.__init__
        ReceiveBuffer.is_next_line_obviously_invalid_request_line ReceiveBuffer.maybe_extract_lines
    """,
    "h11._state": """
        ConnectionState.__init__ ConnectionState._fire_state_triggered_transitions
        ConnectionState.process_event ConnectionState.start_next_cycle
    """,
    "h11._util": "bytesify",
    "h11._writers": "ContentLengthWriter.send_eom write_any_response write_headers",
    "inspect": "_has_code_flag _has_coroutine_mark iscoroutinefunction isfunction ismethod",
    "logging": """
        Formatter.usesTime Handler._at_fork_reinit Logger.debug Logger.getEffectiveLevel Logger.info
        Logger.isEnabledFor Manager.disable PercentStyle.__init__ _after_at_fork_child_reinit_locks
        makeLogRecord
    """,
    "queue": "Queue.full Queue.join",
    "random": "Random.__init__ Random.seed Random.setstate SystemRandom.seed",
    "selectors": """
        EpollSelector.select _BaseSelectorImpl._fileobj_lookup _BaseSelectorImpl.register
        _PollLikeSelector.__init__ _PollLikeSelector.register _PollLikeSelector.unregister _fileobj_to_fd
    """,
    "signal": """
        _enum_to_int _int_to_enum getsignal pthread_sigmask signal sigpending sigwait valid_signals
    """,
    "socket": "socket.__init__ socket.accept socket.detach socketpair",
    "ssl": "SSLContext._encode_hostname SSLContext.wrap_bio SSLObject._create",
    "threading": """
        Condition.__enter__ Condition.__exit__ Condition.__init__ Condition._acquire_restore
        Condition._is_owned Condition._release_save Condition.notify Condition.notify_all Condition.wait
        Event.__init__ Event.is_set Event.set Event.wait RLock Thread.__init__ Thread._after_fork
        Thread._bootstrap Thread._bootstrap_inner Thread._set_ident Thread._set_native_id Thread.daemon
        Thread.name Thread.run Thread.start _after_fork _make_invoke_excepthook _register_atexit
    """,
    "weakref": """
        KeyedRef.__new__ WeakKeyDictionary.__getitem__ WeakValueDictionary.__delitem__
        WeakValueDictionary.__init__ WeakValueDictionary.__setitem__ WeakValueDictionary.get
        WeakValueDictionary.update
    """,
}
